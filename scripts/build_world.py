"""Builds the embedded fact set: packages and hand-written tables in, ``facts.jsonl`` out.

    pip install ".[world]" && python scripts/build_world.py [--check]

The same package versions give the same bytes. ``--check`` writes nothing and fails when the committed file
differs. Sources are in ``scripts/world/`` (tables and corrections, each with its reason) and are listed with
their licences in ``src/knowshift/facts/world/SOURCES.md``.
"""

import argparse
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

from world import cities, packages, tables  # noqa: E402
from world.names import ascii_form, lot, normalise  # noqa: E402

from knowshift.facts.fact import Fact  # noqa: E402
from knowshift.facts.templates import Topic, templates_for, topics  # noqa: E402

TARGET = ROOT / "src/knowshift/facts/world/facts.jsonl"
ALIASES = ROOT / "src/knowshift/facts/aliases.toml"
SPLITS = (("train", 0.60), ("validation", 0.75), ("test", 1.0))
MAJORITY = 0.30  # no answer may hold a larger share of its topic
SHORTEST = 4  # letters of an answer; shorter ones turn up inside other words
LARGEST = {"id": 265, "ood": 165}  # facts of a topic; more would only crowd out the other topics


class Row(NamedTuple):
    """A subject of a topic with its right answers, the preferred one first."""

    topic: str
    subject: str
    answers: tuple[str, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed file, write nothing")
    arguments = parser.parse_args()
    facts = build()
    text = "".join(fact.to_json() + "\n" for fact in facts)
    if arguments.check:
        same = TARGET.read_text("utf-8") == text
        print("facts.jsonl is up to date" if same else "facts.jsonl differs from what the sources give")
        return 0 if same else 1
    TARGET.write_text(text, "utf-8")
    describe(facts)
    return 0


def build() -> list[Fact]:
    """Every fact, sorted by topic and id."""
    corrections = tomllib.loads((ROOT / "scripts/world/corrections.toml").read_text("utf-8"))
    folder = ROOT / "scripts/world"
    sources = (
        packages.rows(corrections),
        cities.rows(packages.country_names(corrections), folder),
        tables.rows(folder),
    )
    rows = [Row(*row) for source in sources for row in source]
    groups = alias_groups()
    by_topic: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_topic[row.topic].append(row)
    facts = []
    for name, topic in topics("world").items():
        kept = unambiguous(by_topic.pop(name), set(corrections["skip_answers"].get(name, ())))
        facts += [fact for row in kept if (fact := make(row, topic, groups)) is not None]
    if by_topic:
        raise SystemExit(f"no templates for {sorted(by_topic)}")
    return sorted(balanced(facts), key=lambda fact: (fact.topic, fact.id))


def unambiguous(rows: list[Row], skipped: set[str]) -> Iterator[Row]:
    """Rows whose preferred answer cannot match by accident where another answer of the topic is meant."""
    subjects = Counter(normalise(row.subject) for row in rows)
    doubled = [subject for subject, count in subjects.items() if count > 1]
    if doubled:
        raise SystemExit(f"{rows[0].topic}: more than one row for {doubled}")
    rows = [row for row in rows if row.answers[0] not in skipped]
    primary = {row.answers[0].casefold() for row in rows}
    for row in rows:
        first, *rest = row.answers
        if within(first, primary):
            continue
        if row.topic != "sport_of_player":  # "football" is right for two sports
            rest = [extra for extra in rest if not within(extra, primary - {first.casefold()})]
        yield row._replace(answers=(first, *rest))


def within(name: str, names: set[str]) -> bool:
    """Whether ``name`` is a part of one of ``names``, but not the whole of it."""
    return any(name.casefold() in other and name.casefold() != other for other in names)


def make(row: Row, topic: Topic, groups: dict[str, tuple[str, ...]]) -> Fact | None:
    """The fact of a row, or None if its wording gives the answer away."""
    first, *rest = row.answers
    spellings = list(dict.fromkeys(form for answer in (first, *rest) for form in (answer, ascii_form(answer))))
    fact = Fact(
        id=f"{row.topic}:{slug(row.subject)}",
        question=topic.question.replace("{subject}", row.subject),
        answers=tuple(spellings),
        topic=row.topic,
        subject=row.subject,
        split=split_of(row.subject),
        domain=topic.domain,
    )
    wording = ascii_form("\n".join((fact.question, *templates_for(fact)))).casefold()
    given_away = [name for name in (first, *groups.get(first.casefold(), ())) if leaks(name, wording)]
    if given_away or len(first) < SHORTEST:
        return None
    clean = tuple(answer for answer in fact.answers if not leaks(answer, wording) and len(answer) >= SHORTEST)
    return Fact(fact.id, fact.question, clean, fact.topic, fact.subject, fact.split, fact.domain)


def leaks(name: str, wording: str) -> bool:
    """Whether ``name`` stands in a question; abbreviations ("US") are matched as they are and cannot."""
    return len(name) >= SHORTEST and ascii_form(name).casefold() in wording


def balanced(facts: Iterable[Fact]) -> list[Fact]:
    """Facts cut to ``LARGEST`` a topic and ``MAJORITY`` an answer; which ones stay is drawn by hash."""
    by_topic: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        by_topic[fact.topic].append(fact)
    kept = []
    for members in by_topic.values():
        members.sort(key=lambda fact: lot("balance", fact.id))
        del members[LARGEST[members[0].domain] :]
        while True:
            answer, count = Counter(fact.answers[0] for fact in members).most_common(1)[0]
            if count <= MAJORITY * len(members):
                break
            members.remove(next(fact for fact in members if fact.answers[0] == answer))
        kept += members
    return kept


def split_of(subject: str) -> str:
    """Train, validation or test, drawn from the subject alone: a subject stands in one split in every topic."""
    share = lot("split", normalise(subject))
    return next(name for name, end in SPLITS if share < end)


def slug(subject: str) -> str:
    """The subject as the tail of an id."""
    return normalise(subject).replace(" ", "_")


def alias_groups() -> dict[str, tuple[str, ...]]:
    """Every name that has equals, with all of them."""
    groups = tomllib.loads(ALIASES.read_text("utf-8"))["groups"]
    return {name.casefold(): tuple(group) for group in groups for name in group}


def describe(facts: list[Fact]) -> None:
    """Print what came out, topic by topic."""
    for name in topics("world"):
        members = [fact for fact in facts if fact.topic == name]
        splits = Counter(fact.split for fact in members)
        answer, count = Counter(fact.answers[0] for fact in members).most_common(1)[0]
        print(f"{name:28}{len(members):5} {dict(splits)}  majority {answer} {count / len(members):.2f}")
    print(Counter((fact.domain, fact.split) for fact in facts), len(facts))


if __name__ == "__main__":
    sys.exit(main())
