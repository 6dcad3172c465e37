"""The facts of a comparison and what the base model knows of them, made once: sets, mastery, the base's own answers.

Validation and test facts are files of their own: who holds one cannot read the other. Nothing out of domain is ever
trained on, so the out-of-domain facts of the train split are shared out between the two, half to each.
"""

import datetime
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import numpy as np
import polars as pl
from methods_plan import Plan

from knowshift import __version__, steps
from knowshift.errors import InputError
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.facts.sources import read_facts
from knowshift.files import digest_of, read_json, write_json
from knowshift.mastery.score import MasteryOptions
from knowshift.mastery.select import read_mastery, select, write_training_set
from knowshift.measure.pairs import read_answers
from knowshift.models import digest, resolve
from knowshift.seeds import derive
from knowshift.study.stages import Stages
from knowshift.weights.bits import decode
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.pairing import pair
from knowshift.weights.walk import tiles

REGION = "all"
BASE_FORMS = ("few-shot", "trained")


@dataclass(frozen=True, slots=True)
class Data:
    """What cells are measured with.

    Attributes:
        root: the folder of all of it.
        base: digest of the base model.
        key: digest of everything that decides the facts and what is said of the base.
    """

    root: Path
    base: str
    key: str

    def facts(self, split: str) -> Path:
        """The facts of `validation` or `test`, both domains."""
        return self.root / f"{split}.jsonl"

    def known(self, split: str) -> Path:
        """Those of them that the base answers after solved examples."""
        return self.root / f"{split}-known.jsonl"

    def answers(self, split: str, form: str = "few-shot") -> pl.DataFrame:
        """What the base answers to them."""
        return read_answers(self.root / f"base-{split}-{form}")

    @property
    def mastery(self) -> Path:
        """The mastery run: train facts, of which sets are drawn, and the test split's own facts."""
        return self.root / "mastery"

    def training_set(self, seed: int) -> Path:
        """Prompts and completions of one seed's set."""
        return self.root / "sets" / f"{seed}.jsonl"

    def training_facts(self, seed: int) -> Path:
        """The facts of the same set."""
        return self.root / "sets" / f"{seed}-facts.jsonl"

    def about(self) -> dict[str, float]:
        """``base_norm``, the norm of all the base's weights, and ``seconds``, how long preparing took."""
        found: dict[str, float] = read_json(self.root / "about.json")
        return found


def prepare(plan: Plan, out: Path) -> Data:
    """Choose facts, score them, draw the training sets, ask the base; what was finished before is passed over."""
    chosen = _choose(plan)
    data = locate(plan, out)
    stages = Stages(out / "stages", {"data": data.key, "seeds": [plan.sweep_seed, *plan.test_seeds]})
    stages.run("facts", "Choosing the facts", lambda: _write(plan.facts, data, chosen))
    stages.run("mastery", "What does the base model know?", lambda: _score(plan, data))
    stages.run("sets", "Drawing training sets", lambda: _draw(plan, data, chosen["train"]))
    stages.run("base", "Asking the base model", lambda: _ask(plan, data))
    stages.run("about", "Measuring the base model", lambda: _about(plan, data))
    return data


def locate(plan: Plan, out: Path) -> Data:
    """Where ``prepare`` puts it, whether it is there or not."""
    base = digest(resolve(plan.model))
    facts = [fact.to_json() for facts in _choose(plan).values() for fact in facts]
    inputs = {"plan": plan.data(), "model": base, "version": __version__, "facts": facts}
    return Data(out / "base", base, digest_of(inputs))


def _choose(plan: Plan) -> dict[str, list[Fact]]:
    everything = sorted(read_facts(plan.facts), key=lambda fact: derive(plan.seed, "methods", fact.id))
    spare = [fact for fact in everything if fact.split == "train" and fact.domain == "ood"]
    halves = {"validation": spare[::2], "test": spare[1::2]}

    def some(split: str, domain: str, count: int | None) -> list[Fact]:
        pool = [fact for fact in everything if fact.split == split and fact.domain == domain]
        if domain == "ood":
            pool += [replace(fact, split=split) for fact in halves[split]]
        if not pool or (count is not None and count > len(pool)):
            raise InputError(
                f"{plan.facts}: {count or 1} facts of split {split!r} and domain {domain!r} are asked for, "
                f"found {len(pool)}"
            )
        return sorted(pool[:count], key=lambda fact: (fact.topic, fact.id))

    chosen = {"train": some("train", "id", plan.scored)}
    for split, counts in (("validation", plan.validation), ("test", plan.test)):
        chosen[split] = [fact for domain in ("id", "ood") for fact in some(split, domain, getattr(counts, domain))]
    return chosen


def _write(source: str, data: Data, chosen: dict[str, list[Fact]]) -> None:
    write_jsonl(data.root / "facts.jsonl", (fact.to_json() for facts in chosen.values() for fact in facts))
    spare = {fact.id for fact in read_facts(source, split="train")}
    scored = [*chosen["train"], *(fact for fact in chosen["test"] if fact.id not in spare)]
    write_jsonl(data.root / "scored.jsonl", (fact.to_json() for fact in scored))
    for split in ("validation", "test"):
        write_jsonl(data.facts(split), (fact.to_json() for fact in chosen[split]))


def _score(plan: Plan, data: Data) -> None:
    options = MasteryOptions(**plan.mastery.model_dump(), slick=False, seed=plan.seed)
    steps.mastery(plan.model, str(data.root / "scored.jsonl"), data.mastery, options)


def _draw(plan: Plan, data: Data, train: list[Fact]) -> None:
    scored, facts = read_mastery(data.mastery), {fact.id: fact for fact in train}
    for seed in {plan.sweep_seed, *plan.test_seeds}:
        parts = [select(scored, level=level, size=size, seed=seed) for level, size in plan.levels.items() if size]
        chosen = pl.concat(parts)
        write_training_set(chosen, data.training_set(seed))
        write_jsonl(data.training_facts(seed), (facts[identity].to_json() for identity in chosen["id"]))


def _ask(plan: Plan, data: Data) -> None:
    """The base's answers after solved examples, the same for all facts; and under the trained prompt."""
    for split in ("validation", "test"):
        for form in BASE_FORMS:
            steps.evaluate(
                plan.model,
                str(data.root / "facts.jsonl"),
                data.root / f"base-{split}-{form}",
                form=form,
                mastery_run=data.mastery if split == "test" else None,
                max_new_tokens=plan.max_new_tokens,
                split=split,
                seed=plan.seed,
            )
        known = set(data.answers(split).filter("contains")["id"])
        facts = [fact for fact in read_facts(str(data.facts(split))) if fact.id in known]
        if {fact.domain for fact in facts} != {"id", "ood"}:
            raise InputError(f"{plan.facts}: of the {split} facts of a domain the base model answers none")
        write_jsonl(data.known(split), (fact.to_json() for fact in facts))


def _about(plan: Plan, data: Data) -> None:
    checkpoint = Checkpoint.open(resolve(plan.model))
    pairs, _ = pair(checkpoint, checkpoint, REGION)
    squares = 0.0
    for tile in tiles(pairs):
        values = decode(tile.pair.base_bits(tile.start, tile.stop), tile.pair.base.dtype).astype(np.float64)
        squares += float(values @ values)
    write_json(
        data.root / "about.json", {"base_norm": sqrt(squares), "seconds": sum(map(spent, data.root.glob("*/run.json")))}
    )


def spent(run: Path) -> float:
    """Seconds between start and end in a ``run.json``."""
    entry = read_json(run)
    started, ended = (datetime.datetime.fromisoformat(entry[name]) for name in ("started", "ended"))
    return (ended - started).total_seconds()
