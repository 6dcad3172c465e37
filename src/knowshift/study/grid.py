"""A plan as cells: what is scored, chosen, trained and measured, and what each of them reads.

    mastery (a split each) -> select -> train -> eval, drift, diff, sweep -> confirm

How many facts a level holds is known once mastery is; until then a set's size is what the plan asks for. Knows the
plan and digests; does no work.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowshift.files import digest_file
from knowshift.study.cell import Cell
from knowshift.study.ground import Ground, Source
from knowshift.study.index import Missing
from knowshift.study.plan import Plan, Some, Training
from knowshift.study.sets import Set, sized

# How many facts of each level a mastery cell's split holds; None before it is done.
Held = Callable[[Cell], Mapping[int, int] | None]
FEW_SHOT = "few-shot"
# Options of training that name a file, which decides by its content.
FILES = ("replay", "chat_template", "drift_text")


@dataclass(frozen=True, slots=True)
class Grid:
    """A plan's cells, inputs before what reads them, and those that there cannot be."""

    cells: list[Cell] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)


def grid(plan: Plan, ground: Ground, held: Held) -> Grid:
    """The cells of a plan as far as they are known.

    Args:
        held: what each level holds, by the mastery cell of the train split.
    """
    found = Grid()
    for model in plan.models:
        _Model(plan, ground, model, found).add(held)
    return found


class _Model:
    """The cells of one base model."""

    def __init__(self, plan: Plan, ground: Ground, model: str, found: Grid) -> None:
        self.plan, self.ground, self.model, self.found = plan, ground, model, found
        self.mastery = {split: self._mastery(split) for split in ground.splits}

    def add(self, held: Held) -> None:
        """Add them all to the grid."""
        self.found.cells.extend(self.mastery.values())
        self._asked("base", self.model, (), self.plan.eval.base_forms, {})
        if self.model in self.plan.instruct:
            self._asked("instruct", self.plan.instruct[self.model], (), self.plan.eval.base_forms, {})
        known = held(self.mastery["train"])
        for level, mix in [(level, None) for level in self.plan.levels] + [(None, mix) for mix in self.plan.mixes]:
            sets, lacking = sized(self.plan, level, mix, known)
            self.found.missing.extend(
                Missing("train", {"role": "tuned", "model": self.model, **one.labels, "size": None}, why)
                for one, why in lacking
            )
            for one in sets:
                for seed in self.plan.seeds:
                    self._trained(one, seed)

    def _trained(self, one: Set, seed: int) -> None:
        """One training set under one seed, with every method that trains on it."""
        methods = [method for method in self.plan.methods if _trains(method, one, seed)]
        if not methods:
            return
        labels = {"role": "tuned", "model": self.model, **one.labels, "seed": seed}
        chosen = {"level": one.level, "mix": one.mix, "size": one.size, "seed": seed}
        select = Cell("select", chosen, (self.mastery["train"],), labels=labels)
        self.found.cells.append(select)
        for method in methods:
            train = self._cell(
                "train", _settings(self.plan, method, seed), (select,), labels | {"method": method.label}
            )
            self._measured(train, one, seed, method)

    def _measured(self, train: Cell, one: Set, seed: int, method: Training) -> None:
        plan, labels = self.plan, dict(train.labels)
        self._asked("tuned", self.model, (train,), plan.eval.forms, labels)
        weights = {"region": plan.region, "arithmetic": plan.arithmetic, "seed": plan.seed}
        if _measures(plan.drift, one, seed, method):
            split = plan.drift.split
            for mode in plan.drift.modes:
                options = {"mode": mode, "seed": plan.seed}
                self._on_facts("drift", split, options, (train,), labels | {"split": split, "mode": mode})
        if plan.diff.enabled and _measures(plan.diff, one, seed, method):
            self._cell("diff", {**weights, "fractions": list(plan.diff.fractions)}, (train,), labels)
        if plan.sweep.enabled and _measures(plan.sweep, one, seed, method):
            asked = {**weights, "max_new_tokens": plan.eval.max_new_tokens}
            walked = {
                "fractions": sorted(plan.sweep.fractions),
                "rivals": [[rival.method, rival.set] for rival in plan.sweep.rivals],
                "layers": plan.sweep.layers,
                "modules": list(plan.sweep.modules),
            }
            sweep = self._on_facts("sweep", "validation", asked | walked, (train,), labels | {"split": "validation"})
            self._on_facts("confirm", "test", asked, (train, sweep), labels | {"split": "test"})

    def _mastery(self, split: str) -> Cell:
        source = self.ground.splits[split]
        options = {
            "model": self.ground.models[self.model],
            "facts": source.digest,
            "mastery": {**self.plan.mastery.model_dump(), "seed": self.plan.seed},
        }
        labels = {"role": "base", "model": self.model, "split": split}
        return Cell("mastery", options, (), {"model": self.model, "facts": source.place}, labels)

    def _asked(
        self, role: str, model: str, inputs: tuple[Cell, ...], forms: tuple[str, ...], labels: Mapping[str, Any]
    ) -> None:
        for split in self.plan.eval.splits:
            for form in forms:
                options = {"form": form, "max_new_tokens": self.plan.eval.max_new_tokens, "seed": self.plan.seed}
                named = {"role": role, "model": self.model, **labels, "split": split, "form": form}
                self._on_facts("eval", split, options, inputs, named, model=model, shown=form == FEW_SHOT)

    def _on_facts(
        self,
        kind: str,
        split: str,
        options: Mapping[str, Any],
        inputs: tuple[Cell, ...],
        labels: Mapping[str, Any],
        *,
        model: str | None = None,
        shown: bool = False,
    ) -> Cell:
        """A cell that asks facts of a split, whose levels it reads from mastery."""
        source = (self.ground.shown if shown else self.ground.splits)[split]
        asked = {"facts": source.digest, "split": split, **options}
        return self._cell(kind, asked, (self.mastery[split], *inputs), labels, model=model, source=source)

    def _cell(
        self,
        kind: str,
        options: Mapping[str, Any],
        inputs: tuple[Cell, ...],
        labels: Mapping[str, Any],
        *,
        model: str | None = None,
        source: Source | None = None,
    ) -> Cell:
        named = model or self.model
        places = {"model": named} | ({"facts": source.place} if source else {})
        cell = Cell(kind, {"model": self.ground.models[named], **options}, inputs, places, labels)
        self.found.cells.append(cell)
        return cell


def _trains(method: Training, one: Set, seed: int) -> bool:
    if one.level is None:
        among = method.mixes is None or one.mix in method.mixes
    else:
        among = method.levels is None or one.level in method.levels
    return among and _among(method.sizes, one.asked) and _among(method.seeds, (seed,))


def _measures(some: Some, one: Set, seed: int, method: Training) -> bool:
    wanted = some.methods is None or method.label in some.methods
    return wanted and _among(some.sizes, one.asked) and _among(some.seeds, (seed,))


def _among(wanted: tuple[Any, ...] | None, values: tuple[Any, ...]) -> bool:
    return wanted is None or any(value in wanted for value in values)


def _settings(plan: Plan, method: Training, seed: int) -> dict[str, Any]:
    """Every option of a training as resolved, but for model, data and folder, which are the cell's inputs.

    An adapter is merged: what is measured is a whole model, and no copy of it stays behind in a cache.
    """
    from knowshift.train.methods import trains_adapter
    from knowshift.train.options import TrainOptions

    nowhere = Path("none")
    options = TrainOptions(
        model="none", data=nowhere, out=nowhere, method=method.method, set=method.set, seed=seed, **plan.train
    )
    options = options.model_copy(update={"merge": trains_adapter(options.methods())})
    given = {name: value for name, value in options.settings().items() if name not in ("model", "data", "out")}
    files = {name: digest_file(Path(given[name])) for name in FILES if given.get(name)}
    return {"train": given, "files": files}
