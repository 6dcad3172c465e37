"""Studies of cells that do no work, done in the test's own process or in real ones."""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from knowshift.study.cell import Cell, Task
from knowshift.study.executors import Ended, Executor
from knowshift.study.executors.local import Local
from knowshift.study.grid import Grid
from knowshift.study.run import at_work, run_cells
from knowshift.study.work import do


class Inline:
    """An executor that does a cell when it is started, one after another, and notes which."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.done: list[str] = []
        self._ended: list[Ended] = []

    def room(self, need: int) -> bool:
        return not self._ended

    def start(self, task: Task, need: int) -> None:
        self.done.append(task.key)
        try:
            do(task, self.out)
            self._ended.append(Ended(task.key))
        except Exception:
            self._ended.append(Ended(task.key, traceback.format_exc()))

    def ended(self, timeout: float) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None: ...


def study(
    out: Path, cells: Sequence[Cell], made: Callable[[Path], Executor] | None = None, **options: bool
) -> tuple[pl.DataFrame, list[str]]:
    """Do the cells; the index, and the keys of those that were begun where that is known."""
    executor = made(out) if made else Inline(out)
    with at_work(out):
        table = run_cells(out, lambda: Grid(list(cells), []), lambda needs: executor, **options)
    return table, getattr(executor, "done", [])


def local(workers: int) -> Callable[[Path], Executor]:
    """Real worker processes."""
    return lambda out: Local(out, workers, [])


def diamonds(count: int, **options: object) -> list[Cell]:
    """``count`` times: a cell, a model made of it, two that read the model, and one that reads one of those too."""
    made = []
    for number in range(count):
        first = Cell("stub", {"n": number, **options})
        model = Cell("stub-model", {"weight": number}, (first,))
        left = Cell("stub", {"n": number, "side": "left"}, (model,))
        right = Cell("stub", {"n": number, "side": "right"}, (model,))
        last = Cell("stub", {"n": number, "last": True}, (left, model))
        made += [right, last]
    return made


def results(out: Path) -> dict[str, bytes]:
    """What every cell wrote, by its place."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob("cells/*/*/stub.json"))}
