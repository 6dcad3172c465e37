"""What a plan stands on: its models by digest, its facts by split as files in the study's folder.

A split is a file of its own, so that asking more test facts changes nothing that was trained. A file is named by its
content and never written over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from knowshift.errors import InputError
from knowshift.facts.fact import DOMAINS, Fact, write_jsonl
from knowshift.facts.sources import SPLITS, read_facts
from knowshift.files import digest_of
from knowshift.study.cell import SHORT
from knowshift.study.plan import Plan
from knowshift.study.sample import balanced

FACTS = "facts"


@dataclass(frozen=True, slots=True)
class Source:
    """Facts as a file.

    Attributes:
        digest: of the facts in their order.
        facts: what is in it.
    """

    digest: str
    facts: tuple[Fact, ...]

    @property
    def place(self) -> str:
        """The file's name in the study's folder."""
        return f"{FACTS}/{self.digest[:SHORT]}.jsonl"

    def write(self, out: Path) -> None:
        """Write the file, unless it is there."""
        if not (out / self.place).exists():
            write_jsonl(out / self.place, (fact.to_json() for fact in self.facts))


@dataclass(frozen=True, slots=True)
class Ground:
    """What the cells of a plan name by digest.

    Attributes:
        models: digest of each model by its name in the plan.
        splits: the facts of each split.
        shown: the facts of validation and of test, each with those of train, from which solved examples are drawn.
    """

    models: dict[str, str]
    splits: dict[str, Source]
    shown: dict[str, Source]

    def write(self, out: Path) -> None:
        """Write every file of facts."""
        for source in (*self.splits.values(), *self.shown.values()):
            source.write(out)


def ground(plan: Plan) -> Ground:
    """Read the plan's models (digests only) and facts; nothing is written.

    Raises:
        InputError: for a model or fact set that there is not, or a split without facts.
    """
    from knowshift.models import digest, resolve

    splits = split_facts(plan)
    shown = {name: _source([*splits["train"].facts, *splits[name].facts]) for name in SPLITS if name != "train"}
    names = dict.fromkeys([*plan.models, *plan.instruct.values()])
    return Ground({name: digest(resolve(name)) for name in names}, splits, shown)


def split_facts(plan: Plan) -> dict[str, Source]:
    """The facts of each split: of train the in-domain ones, which are chosen from; of the others both domains.

    Raises:
        InputError: if a split holds none.
    """
    everything = read_facts(plan.facts, drop_overlaps=plan.drop_overlaps)
    wanted = {"train": plan.train_facts, "validation": plan.validation_facts, "test": plan.test_facts}
    found = {}
    for split, count in wanted.items():
        chosen: list[Fact] = []
        for domain in ("id",) if split == "train" else DOMAINS:
            pool = [fact for fact in everything if fact.split == split and fact.domain == domain]
            chosen += balanced(pool, count, plan.seed)
        if not chosen:
            raise InputError(f"{plan.facts}: a study needs facts of split {split!r}, and there are none")
        found[split] = _source(chosen)
    return found


def _source(facts: Sequence[Fact]) -> Source:
    return Source(digest_of([fact.to_json() for fact in facts]), tuple(facts))
