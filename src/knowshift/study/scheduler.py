"""Which cell is next: starts what is ready, notes what came of it, until nothing more can be done.

State is in the cells' folders; what is held here is a copy. A cell that fails stops nobody but those that read it. One
whose process died is tried once more, alone on the machine. A trained model is removed once nobody will read it, and
trained again when a new cell needs it; should it then differ, what was measured of the old one is measured again.
"""

import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from knowshift.errors import InputError
from knowshift.files import free_room
from knowshift.study import index
from knowshift.study.cell import CELLS, Cell, Task, ordered
from knowshift.study.executors import Ended, Executor
from knowshift.study.grid import Grid
from knowshift.study.index import Standing
from knowshift.study.marks import Done, mark_failed, read_done, read_error, verified
from knowshift.study.needs import Needs
from knowshift.study.pace import Pace
from knowshift.study.work import KINDS, MODEL

# Later steps first: what a model was trained for is done, and its disk free, before the next is trained.
ORDER = ("confirm", "sweep", "drift", "diff", "eval", "mastery", "train", "select")
# The index is written after a change of state, but takes at most this share of the time.
INDEX_SHARE = 0.02
# The model of a cell whose readers failed stays for the next try while the disk has room for so many more.
SPARE_MODELS = 10
POLL_SECONDS = 0.5


class Scheduler:
    """One run of a study's cells.

    Args:
        out: the study's folder, which no other scheduler works in.
        expand: the cells there are, as far as they can be told now.
        made: makes the executor, from the memory in bytes that each cell to be done takes.
        keep_models: whether trained models stay.
    """

    def __init__(
        self, out: Path, expand: Callable[[], Grid], made: Callable[[list[int]], Executor], *, keep_models: bool = False
    ) -> None:
        self._out = out
        self._expand = expand
        self._made = made
        self._keep = keep_models
        self._grid = Grid()
        self._cells: dict[str, Cell] = {}
        self._tasks: dict[str, Task] = {}
        self._readers: dict[str, list[Cell]] = {}
        self._done: dict[str, Done] = {}
        self._state: dict[str, Standing] = {}
        self._alone: set[str] = set()
        self._needs = Needs()
        self._written = self._cost = 0.0
        self._changed = True

    def run(self) -> None:
        """Do all that can be done; ``cells.parquet`` says at the end what was and what was not."""
        self._plan()
        executor = self._made([self._needs(self._tasks[cell.key]) for cell in self._waiting()])
        pace = Pace()
        try:
            with pace.shown():
                while True:
                    self._start(executor)
                    pace.show(self._state, self._cells)
                    if not self._running():
                        break
                    self._write_index()
                    for ended in executor.ended(POLL_SECONDS):
                        self._end(ended)
            self._remove_strays()
        finally:
            executor.close()
            for key in self._running():
                self._set(key, Standing("waiting"))
            self._write_index(now=True)

    def _plan(self) -> None:
        """Take the cells as they can be told now; those known before keep their standing."""
        self._grid = self._expand()
        cells = ordered(self._grid.cells)
        self._cells = {cell.key: cell for cell in cells}
        self._readers = {cell.key: [] for cell in cells}
        for cell in cells:
            for needed in cell.inputs:
                self._readers[needed.key].append(cell)
            if cell.key not in self._state:
                self._tasks[cell.key] = cell.as_task()
                self._check(cell)
        self._needs.learn((self._tasks[key], self._state[key]) for key in self._cells)
        for cell in cells:
            self._release(cell)
        index.write_grid(self._out, list(self._cells.values()), self._grid.missing)
        self._changed = True

    def _check(self, cell: Cell) -> None:
        """Whether it is done, its files as they were written and its inputs as it read them."""
        if all(one.key in self._done for one in cell.inputs):
            inputs = {one.key: self._done[one.key].result for one in cell.inputs}
            if done := verified(cell.folder(self._out), cell.key, inputs):
                self._done[cell.key] = done
                self._state[cell.key] = Standing("done", done.seconds, done.peak_bytes)
                return
        self._state[cell.key] = Standing("waiting")

    def _start(self, executor: Executor) -> None:
        """Start every cell that is ready and fits."""
        if any(key in self._alone for key in self._running()):
            return
        for cell in self._waiting():
            self._recall(cell)
        ready = [cell for cell in self._waiting() if self._ready(cell)]
        ready.sort(key=lambda cell: (cell.key in self._alone, _turn(cell)))
        for cell in ready:
            if cell.key in self._alone and self._running():
                return
            need = self._needs(self._tasks[cell.key])
            if not executor.room(need):
                continue
            self._set(cell.key, Standing("running"))
            executor.start(self._tasks[cell.key], need)
            if cell.key in self._alone:
                return

    def _waiting(self) -> list[Cell]:
        return [cell for cell in self._cells.values() if self._state[cell.key].state == "waiting"]

    def _ready(self, cell: Cell) -> bool:
        return all(self._state[one.key].state == "done" for one in cell.inputs)

    def _recall(self, cell: Cell) -> None:
        """Have a model that was removed made again for a cell that would read it now."""
        if self._ready(cell):
            for one in cell.inputs:
                if KINDS[one.kind].model and not self._model(one).is_dir():
                    self._set(one.key, Standing("waiting"))

    def _end(self, ended: Ended) -> None:
        """Note what came of a cell, and what follows from it for others."""
        cell = self._cells.get(ended.key)
        if cell is None:
            self._state.pop(ended.key, None)
            return
        done = read_done(cell.folder(self._out), cell.key)
        if ended.traceback is None and done is not None:
            if self._reads_as_now(cell, done):
                self._finish(cell, done)
            else:
                self._set(cell.key, Standing("waiting"))
        elif ended.died is not None and cell.key not in self._alone:
            self._alone.add(cell.key)
            self._set(cell.key, Standing("waiting"))
        else:
            died = f"its process was {ended.died}, twice; too little memory for it?" if ended.died else "left no mark"
            self._fail(cell, ended.traceback or died)
        for one in (cell, *cell.inputs):
            self._release(one)

    def _reads_as_now(self, cell: Cell, done: Done) -> bool:
        return done.inputs == {one.key: self._done[one.key].result for one in cell.inputs}

    def _finish(self, cell: Cell, done: Done) -> None:
        before = self._done.get(cell.key)
        self._done[cell.key] = done
        self._set(cell.key, Standing("done", done.seconds, done.peak_bytes))
        self._needs.learn([(self._tasks[cell.key], self._state[cell.key])])
        if before is not None and before.result != done.result:
            self._outdate(cell)
        if cell.kind == "mastery":
            self._plan()
        if before is None:
            self._find_done(cell)

    def _find_done(self, cell: Cell) -> None:
        """What was made of this very result before is done as well."""
        for reader in self._readers[cell.key]:
            if self._state[reader.key].state == "waiting":
                self._check(reader)
                if self._state[reader.key].state == "done":
                    self._changed = True
                    self._find_done(reader)

    def _outdate(self, cell: Cell) -> None:
        """What read a cell's earlier result is to be done again, and what read that in turn if it changes."""
        for reader in self._readers[cell.key]:
            if self._state[reader.key].state == "done":
                self._set(reader.key, Standing("waiting"))

    def _fail(self, cell: Cell, traceback: str) -> None:
        try:
            error = mark_failed(cell.folder(self._out), traceback)
        except (OSError, InputError):  # a full disk: the failure is told at the end, and the next run begins anew
            error = traceback.strip().splitlines()[-1]
        self._set(cell.key, Standing("failed", error=error))

    def _release(self, cell: Cell) -> None:
        """Remove a trained model that no cell of this run will read."""
        if not KINDS[cell.kind].model or self._keep or self._state[cell.key].state != "done":
            return
        model = self._model(cell)
        if not model.is_dir() or any(self._will_run(one) for one in self._readers[cell.key]):
            return
        if any(self._state[one.key].state == "failed" for one in self._readers[cell.key]):
            size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
            if free_room(self._out) > SPARE_MODELS * size:
                return
        _remove(model)

    def _remove_strays(self) -> None:
        """Remove the models of cells that an earlier plan had and this one has not."""
        if self._keep:
            return
        known = {cell.folder(self._out) for cell in self._cells.values()}
        for model in (self._out / CELLS).glob(f"*/*/{MODEL}"):
            if model.parent not in known:
                _remove(model)

    def _will_run(self, cell: Cell) -> bool:
        """Whether a cell is running, or will once others are done."""
        state = self._state[cell.key].state
        if state == "running":
            return True
        return state == "waiting" and all(
            self._state[one.key].state == "done" or self._will_run(one) for one in cell.inputs
        )

    def _model(self, cell: Cell) -> Path:
        return cell.folder(self._out) / MODEL

    def _running(self) -> list[str]:
        return [key for key, standing in self._state.items() if standing.state == "running"]

    def _set(self, key: str, standing: Standing) -> None:
        self._state[key] = standing
        self._changed = True

    def _write_index(self, *, now: bool = False) -> None:
        """Write ``cells.parquet`` if something changed and writing it does not cost too much of the time."""
        begun = time.monotonic()
        if not self._changed or (not now and begun - self._written < self._cost / INDEX_SHARE):
            return
        tasks = [self._tasks[key] for key in self._cells]
        index.write(self._out, index.table(tasks, [self._state[key] for key in self._cells], self._grid.missing))
        self._written = time.monotonic()
        self._cost = self._written - begun
        self._changed = False

    def failures(self) -> Iterable[tuple[Cell, str]]:
        """The cells that failed, each with its error's last line."""
        for key, cell in self._cells.items():
            if self._state[key].state == "failed":
                yield cell, self._state[key].error or read_error(cell.folder(self._out)) or ""


def _remove(model: Path) -> None:
    """Remove a model in one step for whoever looks: what has its name is whole."""
    gone = model.with_name(f".{MODEL}.removed")
    shutil.rmtree(gone, ignore_errors=True)
    model.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _turn(cell: Cell) -> int:
    return ORDER.index(cell.kind) if cell.kind in ORDER else 0
