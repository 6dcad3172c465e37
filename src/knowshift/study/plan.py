"""A study's plan: which models, sets, sizes, seeds and methods, and what is measured.

Every key has its description, which ``knowshift study init`` writes beside it. Whatever a plan can get wrong is
refused before anything is loaded. Knows keys and values; ``planfile.py`` knows files.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from knowshift.errors import InputError
from knowshift.mastery.ask import MasteryOptions
from knowshift.mastery.mix import read_mix

Size = Annotated[int, Field(ge=1)] | Literal["all"]
Level = Annotated[int, Field(ge=0, le=4)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
FRACTIONS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.4, 0.6)
# What a cell decides, and a plan's `train` therefore cannot.
RESERVED = ("model", "data", "out", "method", "set", "seed", "merge", "resume_from", "save_steps")

# Of mastery what the plan decides elsewhere, or no study varies.
FIXED = ("seed", "chat")


class Keys(BaseModel):
    """Keys of a plan: immutable, no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Named(Keys):
    """A method and its options; one without options is spelled by its name alone."""

    method: str = Field(min_length=1, description="its name")
    set: dict[str, Any] = Field(default={}, description="its options by name")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """What tables call it: the name, and the options that are given."""
        return " ".join([self.method, *(f"{key}={value}" for key, value in sorted(self.set.items()))])


class Training(Named):
    """A way to train: as ``train --method`` and ``--set``, and for which sets; all of the plan's if not said."""

    levels: tuple[Level, ...] | None = Field(default=None, description="only these levels")
    mixes: tuple[str, ...] | None = Field(default=None, description="only these mixes")
    sizes: tuple[Size, ...] | None = Field(default=None, description="only these sizes")
    seeds: tuple[Seed, ...] | None = Field(default=None, description="only these seeds")


class Some(Keys):
    """Which of the trained models are measured."""

    sizes: tuple[Size, ...] | None = Field(default=None, description="only models of these sizes (null: of all)")
    seeds: tuple[Seed, ...] | None = Field(default=None, description="only models of these seeds (null: of all)")
    methods: tuple[str, ...] | None = Field(
        default=None, description="only models of these methods, spelled as in methods (null: of all)"
    )


class Eval(Keys):
    """Greedy answers: accuracy and transitions."""

    forms: tuple[Literal["trained", "plain", "few-shot", "chat"], ...] = Field(
        default=("trained",), min_length=1, description="how trained models are asked: trained, plain, few-shot, chat"
    )
    base_forms: tuple[Literal["trained", "plain", "few-shot", "chat"], ...] = Field(
        default=("trained", "plain", "few-shot"), min_length=1, description="how the base model is asked"
    )
    splits: tuple[Literal["validation", "test"], ...] = Field(
        default=("validation", "test"), min_length=1, description="of the facts asked; what is chosen needs validation"
    )
    max_new_tokens: int = Field(default=16, ge=1, description="longest answer (paper: 16)")


class Drift(Some):
    """Next-token distributions against the base's."""

    modes: tuple[Literal["teacher", "paper"], ...] = Field(
        default=("teacher",), description="teacher: under the same text; paper: as the paper compares; []: none"
    )
    split: Literal["validation", "test"] = Field(default="test", description="of the facts")


class Diff(Some):
    """Weights against the base's."""

    enabled: bool = Field(default=True, description="false: not measured")
    fractions: tuple[Fraction, ...] = Field(default=FRACTIONS, min_length=1, description="shares of the weights")


class Sweep(Some):
    """Restoration beside its controls on validation; the choice, once, on test."""

    enabled: bool = Field(default=True, description="false: not measured")
    fractions: tuple[Fraction, ...] = Field(default=FRACTIONS, min_length=1, description="shares put back")
    rivals: tuple[Named, ...] = Field(
        default=(), description="other methods of `knowshift merge`: a name, or {method: dare, set: {drop: 0.5}}"
    )
    layers: int | None = Field(
        default=None, ge=1, description="also put back blocks of so many layers, one block at a time (paper: 4)"
    )
    modules: tuple[str, ...] = Field(
        default=(), description='also put back these modules of every layer, such as "q,k,v,o", one entry at a time'
    )


class Plan(Keys):
    """A study: every combination of model, set, size, seed and method, and what is measured of it."""

    models: tuple[str, ...] = Field(
        default=("smollm2",), min_length=1, description="base models: smollm2, folders, hub ids"
    )
    instruct: dict[str, str] = Field(
        default={}, description="for a base model another one to ask beside it, such as its instruct version"
    )
    facts: str = Field(default="world", description="facts with splits train, validation, test: as --facts takes them")
    drop_overlaps: bool = Field(default=False, description="leave out of train what test asks too")
    train_facts: int | None = Field(
        default=None, ge=1, description="in-domain train facts scored and chosen from (null: all)"
    )
    validation_facts: int | None = Field(default=None, ge=1, description="validation facts of each domain (null: all)")
    test_facts: int | None = Field(default=None, ge=1, description="test facts of each domain (null: all)")
    seed: Seed = Field(default=0, description="of the facts drawn, of sampling, of controls and of intervals")
    mastery: MasteryOptions = Field(
        default=MasteryOptions(), description="how mastery is sampled: as the flags of `knowshift mastery`"
    )
    levels: tuple[Level, ...] = Field(default=(0, 1, 2, 3, 4), description="sets of one mastery level")
    mixes: tuple[str, ...] = Field(
        default=(), description='sets of several levels, as `select --mix` takes them, such as "0-4"'
    )
    sizes: tuple[Size, ...] = Field(
        default=(60, 120, 240, 480, 960, 1920, "all"), min_length=1, description="facts trained on; all: what there is"
    )
    short_levels: Literal["largest", "missing"] = Field(
        default="largest",
        description="a level with fewer facts than a size: largest trains on what it holds, missing leaves it out",
    )
    seeds: tuple[Seed, ...] = Field(
        default=(0, 1, 2, 3, 4), min_length=1, description="of set and training; a model for each"
    )
    methods: tuple[Training, ...] = Field(
        default=(Training(method="sft"),),
        min_length=1,
        description="ways to train: a name, or {method: lora, set: {lora.rank: 8}, sizes: [240]}",
    )
    train: dict[str, Any] = Field(
        default={}, description="options of `knowshift train` by name, for all methods; the defaults are the paper's"
    )
    region: str = Field(default="blocks", description="weights compared and put back, as --region takes it")
    arithmetic: Literal["float32", "bfloat16"] = Field(default="float32", description="number type of change scores")
    eval: Eval = Field(default=Eval(), description="greedy answers of every model")
    drift: Drift = Field(default=Drift(), description="next-token distributions against the base's")
    diff: Diff = Field(default=Diff(), description="weights against the base's")
    sweep: Sweep = Field(default=Sweep(), description="restoration beside its controls")
    keep_models: bool = Field(default=False, description="keep trained models once they are measured")

    @field_validator("models", "levels", "mixes", "sizes", "seeds")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("an entry stands twice")
        return values

    @model_validator(mode="after")
    def _together(self) -> Self:
        if not self.levels and not self.mixes:
            raise ValueError("levels and mixes are both empty: there is nothing to train on")
        for mix in self.mixes:
            read_mix(mix)
        for model in self.instruct:
            if model not in self.models:
                raise ValueError(f"instruct: {model!r} is not among the models")
        labels = [method.label for method in self.methods]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"methods: {label!r} stands twice")
        self._check_filters(labels)
        for key in RESERVED:
            if key in self.train:
                raise ValueError(f"train: {key} is not set here: cells decide it" + _place_of(key))
        for name in FIXED:
            if getattr(self.mastery, name):
                raise ValueError(f"mastery: {name} is not set here{': seed of the plan is' if name == 'seed' else ''}")
        return self

    def _check_filters(self, labels: list[str]) -> None:
        """A filter that nothing passes is a slip."""
        known: dict[str, Any] = {name: getattr(self, name) for name in ("levels", "mixes", "sizes", "seeds")}
        filters: dict[str, Keys] = {"drift": self.drift, "diff": self.diff, "sweep": self.sweep}
        filters |= {f"methods: {method.label}": method for method in self.methods}
        for place, keys in filters.items():
            for name, all_of_them in {**known, "methods": labels}.items():
                for value in getattr(keys, name, None) or ():
                    if value not in all_of_them:
                        raise ValueError(f"{place}: {name}: {value!r} is not among the plan's {name}")


def check(plan: Plan) -> None:
    """Refuse options that a method of training or merging, or a region, does not take.

    Raises:
        InputError: in the words of the command that would take them.
    """
    from knowshift.train.options import TrainOptions
    from knowshift.weights.merge import method
    from knowshift.weights.regions import selector

    nowhere = Path("none")
    for training in plan.methods:
        TrainOptions(
            model=plan.models[0], data=nowhere, out=nowhere, method=training.method, set=training.set, **plan.train
        )
    for rival in plan.sweep.rivals:
        if rival.method in ("interpolate", "layers", "modules"):
            raise InputError(f"sweep: rivals: {rival.method} is measured without being named here")
        method(rival.method, **rival.set)
    selector(plan.region)


def _place_of(key: str) -> str:
    """Where in a plan a reserved option is decided."""
    places = {"model": "models", "method": "methods", "set": "methods", "seed": "seeds"}
    return f" ({places[key]} in the plan)" if key in places else ""
