"""One cell: train, ask, drift, diff, each by the package's own step; then the checkpoint goes.

A cell's folder appears whole, with ``run.json``, when all of it was measured. One that is there is never run again.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods_data import REGION, Data
from methods_plan import Cell, Plan

from knowshift import __version__, steps
from knowshift.errors import InputError
from knowshift.files import atomic_folder, digest_file, digest_of, read_json, write_json
from knowshift.memory import return_freed_memory
from knowshift.progress import bar, console
from knowshift.runs import record

CHOICE = "choice.json"


@dataclass(frozen=True, slots=True)
class Choice:
    """The settings chosen on validation, as they are on disk; without one no test fact is asked."""

    path: Path
    target: dict[str, float]
    chosen: list[dict[str, Any]]

    @classmethod
    def settle(cls, out: Path, target: dict[str, float], chosen: list[dict[str, Any]]) -> "Choice":
        """Write the choice down. Once test facts were measured under it, it may be added to but not changed.

        Raises:
            InputError: naming the file, if it would change.
        """
        path, found = out / CHOICE, {"target": target, "chosen": chosen}
        if path.exists() and any((out / "test").glob("*/run.json")):
            earlier = read_json(path)
            if earlier["target"] != target or any(entry not in chosen for entry in earlier["chosen"]):
                raise InputError(f"{path}: test was measured under this choice, the plan now makes another: new --out")
        write_json(path, found)
        return cls(path, target, chosen)

    @classmethod
    def read(cls, out: Path) -> "Choice":
        """The choice in ``out``."""
        found = read_json(out / CHOICE)
        return cls(out / CHOICE, found["target"], found["chosen"])


class Cells:
    """All cells of one comparison in ``out``."""

    def __init__(self, plan: Plan, data: Data, out: Path) -> None:
        self.plan, self.data, self.out = plan, data, out

    def sweep(self) -> None:
        """Train every point of the sweep and ask it validation facts."""
        self._run("sweep", self.plan.sweep(), self._validate)

    def test(self, choice: Choice) -> None:
        """Train each method at its chosen setting under every test seed and measure it on test facts."""
        self._run("test", self.chosen(choice), self._confirm)

    def chosen(self, choice: Choice) -> list[Cell]:
        """The cells of the test, seed by seed, so that a run cut short has whole seeds."""
        cells = [Cell(**entry["cell"]) for entry in choice.chosen]
        return [
            Cell(cell.name, cell.method, cell.set, cell.learning_rate, cell.strength, seed)
            for seed in self.plan.test_seeds
            for cell in cells
        ]

    def folder(self, phase: str, cell: Cell) -> Path:
        """Where a cell is kept; its name holds a digest of all that decides its figures."""
        data = {"facts": self.data.key, "set": digest_file(self.data.training_set(cell.seed))}
        key = {"cell": cell.to_json(), "training": self.plan.training, "version": __version__, **data}
        return self.out / phase / f"{cell.name}-{cell.learning_rate:g}-{cell.seed}-{digest_of(key)[:10]}"

    def done(self, phase: str, cell: Cell) -> bool:
        """Whether it was measured."""
        return (self.folder(phase, cell) / "run.json").is_file()

    def _run(self, phase: str, cells: Sequence[Cell], work: Callable[[Cell, Path, Path], None]) -> None:
        with bar(phase, len(cells)) as advance:
            for number, cell in enumerate(cells, start=1):
                folder = self.folder(phase, cell)
                if not self.done(phase, cell):
                    started = time.perf_counter()
                    self._measure(phase, cell, folder, work)
                    said = f"{cell.name}, {cell.setting}, seed {cell.seed}: {time.perf_counter() - started:.0f} s"
                    console.print(f"{phase} {number}/{len(cells)}  {said}", highlight=False)
                advance(1)

    def _measure(self, phase: str, cell: Cell, folder: Path, work: Callable[[Cell, Path, Path], None]) -> None:
        options = {"phase": phase, "cell": cell.to_json(), "plan": self.plan.model_dump(mode="json")}
        models = {"base": self.data.base}
        with (
            atomic_folder(folder) as partial,
            record(partial, "methods", options, seed=cell.seed, models=models) as entry,
        ):
            started, model = time.perf_counter(), partial / "model"
            steps.train(cell.options(self.plan, self.data.training_set(cell.seed), model))
            trained = time.perf_counter()
            return_freed_memory()
            for name in ("train_log.parquet", "README.md"):
                (partial / "train").mkdir(exist_ok=True)
                shutil.move(model / name, partial / "train" / name)
            work(cell, model, partial)
            shutil.rmtree(model)
            entry["training_seconds"] = trained - started
            entry["seconds"] = time.perf_counter() - started

    def _validate(self, cell: Cell, model: Path, folder: Path) -> None:
        self._ask(model, self.data.facts("validation"), folder / "eval")

    def _confirm(self, cell: Cell, model: Path, folder: Path) -> None:
        self._ask(model, self.data.facts("test"), folder / "eval", mastery_run=self.data.mastery)
        self._ask(model, self.data.training_facts(cell.seed), folder / "trained")
        steps.drift(self.plan.model, str(model), str(self.data.known("test")), folder / "drift", seed=self.plan.seed)
        return_freed_memory()
        steps.diff(self.plan.model, str(model), folder / "diff", region=REGION, fractions=())
        return_freed_memory()

    def _ask(self, model: Path, facts: Path, out: Path, mastery_run: Path | None = None) -> None:
        tokens, seed = self.plan.max_new_tokens, self.plan.seed
        steps.evaluate(str(model), str(facts), out, mastery_run=mastery_run, max_new_tokens=tokens, seed=seed)
        return_freed_memory()
