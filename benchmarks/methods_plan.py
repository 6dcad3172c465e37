"""What a comparison of training methods is asked to do: the plan as YAML, and the cells it comes to.

A cell is one training: a method with its options, a learning rate and a seed. Knows nothing of models.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import yaml  # type: ignore[import-untyped]
from pydantic import Field, model_validator

from knowshift.errors import InputError
from knowshift.settings import Settings
from knowshift.train.methods import trains_adapter
from knowshift.train.options import TrainOptions

# What the harness itself says to `train`.
OWN = {"model", "data", "out", "method", "set", "learning_rate", "seed", "merge"}


class Entry(Settings):
    """One method, and what is tried of it: every combination of a learning rate and strengths is a point."""

    name: str = Field(min_length=1, description="as tables and plots call it")
    method: str = Field(description="as in `train --method`")
    set: dict[str, Any] = Field(default={}, description="options that all its points share, as METHOD.OPTION")
    learning_rates: tuple[float, ...] = Field(min_length=1)
    strengths: dict[str, tuple[Any, ...]] = Field(default={}, description="values tried of METHOD.OPTION")


class Mastery(Settings):
    """How the base model's knowledge is scored."""

    templates: int = 6
    samples: int = 4
    temperature: float = 0.7
    max_new_tokens: int = 8


class PerDomain(Settings):
    """How many facts of each domain, the first of a random order; all where not said."""

    id: int | None = Field(default=None, ge=1)
    ood: int | None = Field(default=None, ge=1)


class Seconds(Settings):
    """What a cell takes where none of its method has been measured, for the estimate alone."""

    prepare: float = Field(default=480, ge=0)
    sweep: float = Field(default=40, ge=0)
    test: float = Field(default=65, ge=0)


class Plan(Settings):
    """A comparison; ``read`` makes one from a file."""

    model: str = "smollm2"
    facts: str = "world"
    seed: int = Field(default=0, description="of the choice of facts, of mastery, and of intervals")
    mastery: Mastery = Mastery()
    scored: int = Field(default=800, ge=1, description="in-domain train facts scored, from which sets are drawn")
    levels: dict[int, int] = Field(default={0: 120, 1: 120}, description="training facts of each level")
    validation: PerDomain = PerDomain()
    test: PerDomain = PerDomain()
    max_new_tokens: int = Field(default=12, ge=1)
    training: dict[str, Any] = Field(default={}, description="options of `train` common to all, such as batch_size")
    sweep_seed: int = 0
    test_seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1)
    target: str = Field(default="sft", description="the method whose accuracy is the mark")
    against: tuple[str, ...] = Field(default=("sft", "lora"), description="methods that all are compared with")
    ours: str | None = Field(default=None, description="the method whose claim is judged")
    methods: tuple[Entry, ...] = Field(min_length=1)
    seconds: Seconds = Seconds()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [entry.name for entry in self.methods]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"methods: {name} stands twice")
        roles = [("target", self.target), *(("against", name) for name in self.against), ("ours", self.ours)]
        for role, wanted in roles:
            if wanted is not None and wanted not in names:
                raise InputError(f"{role}: {wanted!r} is none of the methods ({', '.join(names)})")
        if alien := OWN & set(self.training):
            raise InputError(f"training: {sorted(alien)[0]} is set by the comparison itself")
        for cell in self.sweep():
            cell.options(self, Path("train.jsonl"), Path("model"))  # every option is checked before anything runs
        return self

    def sweep(self) -> list["Cell"]:
        """Every point of every method's sweep, the target's first."""
        entries = sorted(self.methods, key=lambda entry: entry.name != self.target)
        return [cell for entry in entries for cell in points(entry, self.sweep_seed)]

    def data(self) -> dict[str, Any]:
        """The part that decides which facts there are and what the base knows of them."""
        parts = {"model", "facts", "seed", "mastery", "scored", "levels", "validation", "test", "max_new_tokens"}
        return self.model_dump(mode="json", include=parts)


@dataclass(frozen=True, slots=True)
class Cell:
    """One training: ``name`` of the entry, what `train` is told, and the seed of set, order and first weights."""

    name: str
    method: str
    set: dict[str, Any]
    learning_rate: float
    strength: dict[str, Any]
    seed: int

    @property
    def setting(self) -> str:
        """The point of the sweep in words: learning rate and strengths."""
        return ", ".join([f"{self.learning_rate:g}", *(f"{key}={value}" for key, value in self.strength.items())])

    def options(self, plan: Plan, data: Path, out: Path) -> TrainOptions:
        """What `train` is told. An adapter is merged, so that what is measured is a checkpoint for every method."""
        options = TrainOptions(
            model=plan.model,
            data=data,
            out=out,
            method=self.method,
            set={**self.set, **self.strength},
            learning_rate=self.learning_rate,
            seed=self.seed,
            **plan.training,
        )
        return options.model_copy(update={"merge": trains_adapter(options.methods())})

    def to_json(self) -> dict[str, Any]:
        """All of it by name."""
        return asdict(self)


def points(entry: Entry, seed: int) -> list[Cell]:
    """The cells of one entry: learning rates by combinations of strengths."""
    strengths = [dict(zip(entry.strengths, values, strict=True)) for values in _products(entry.strengths.values())]
    return [
        Cell(entry.name, entry.method, entry.set, rate, strength, seed)
        for strength in strengths
        for rate in entry.learning_rates
    ]


def read(path: Path) -> Plan:
    """The plan in a YAML file.

    Raises:
        InputError: naming the file and what in it cannot be used.
    """
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: a mapping is expected")
    try:
        return Plan(**values)
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix('--')}") from error


def _products(values: Any) -> Sequence[tuple[Any, ...]]:
    return list(itertools.product(*values))
