"""Made-up data for a task that is no question: a sentence about a person in, four fields out.

Nobody and no place in it exists, so it teaches no facts; the answer is checkable character by character.

    python benchmarks/repair_task.py --out DIR [--train 960 --heldout 400 --seed 0]

writes ``train.jsonl`` to fine-tune on and ``task.jsonl`` for ``knowshift repair --task``; no person stands in both.
"""

import argparse
import json
import random
from pathlib import Path

# Syllables that begin a word, join it, and end a name or a place; and what people do.
_WORDS = """
Bel Cor Dan El Fer Gal Hil Ir Jor Kel Lor Mir Nor Ol Per Quin Ros Sel Tor Ul Var Wes Yor Zan
a e i o u an el ir on ur
da len mar nis po ra sten tha vik wyn zel go
bridge burg field ford haven mouth stead ton wick
baker surveyor nurse welder archivist plumber tailor pilot gardener clerk cooper porter weaver miller joiner carter \
printer glazier ranger cook
"""
STARTS, MIDDLES, ENDS, PLACES, ROLES = (line.split() for line in _WORDS.strip().splitlines())
SENTENCES = (
    "{name}, {age}, has worked as a {role} in {city} for years.",
    "The {role} {name} moved to {city} at the age of {age}.",
    "In {city} people know {name}, a {role} of {age}.",
    "{name} of {city} turned {age} this spring and is still a {role}.",
    "At {age}, {name} became a {role}; the shop in {city} is small.",
    "They asked {name} from {city}, who is {age}, about life as a {role}.",
)


def record(generator: random.Random) -> dict[str, str]:
    """One person."""

    def word() -> str:
        return generator.choice(STARTS) + generator.choice(MIDDLES) + generator.choice(ENDS)

    return {
        "name": f"{word()} {word()}",
        "age": str(generator.randint(18, 89)),
        "role": generator.choice(ROLES),
        "city": generator.choice(STARTS) + generator.choice(MIDDLES) + generator.choice(PLACES),
    }


def line(person: dict[str, str], sentence: str) -> str:
    """A line of JSONL: the sentence as prompt, the fields as completion."""
    fields = " | ".join(f"{field}={person[field]}" for field in ("name", "role", "age", "city"))
    return json.dumps({"prompt": f"Text: {sentence.format(**person)}\nRecord:", "completion": f" {fields}"})


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=960)
    parser.add_argument("--heldout", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    people: dict[str, dict[str, str]] = {}
    while len(people) < options.train + options.heldout:
        person = record(generator)
        people.setdefault(person["name"], person)
    lines = [line(person, generator.choice(SENTENCES)) for person in people.values()]
    options.out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", lines[: options.train]), ("task", lines[options.train :])):
        (options.out / f"{name}.jsonl").write_text("".join(f"{each}\n" for each in part), "utf-8")


if __name__ == "__main__":
    main()
