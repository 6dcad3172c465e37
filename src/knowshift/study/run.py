"""``knowshift study``: a plan's cells done in one folder, which is all that a study is.

The same command on the same folder does what is not done yet, and nothing else. Two at once on one folder are refused.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import polars as pl
from filelock import FileLock, Timeout

from knowshift.errors import InputError
from knowshift.files import check_writable, full_disk_refused, make_folder, write_json
from knowshift.mastery.select import level_counts, read_mastery
from knowshift.runs import record
from knowshift.study import index
from knowshift.study.cell import Cell
from knowshift.study.executors import Executor, executor
from knowshift.study.grid import Grid, Held, grid
from knowshift.study.ground import ground
from knowshift.study.marks import read_done
from knowshift.study.plan import Plan
from knowshift.study.scheduler import Scheduler

LOCK, PLAN = ".lock", "plan.json"
PATIENCE = 0.5  # seconds
DRAWN_BY = ("altair", "vl_convert", "jinja2")
GOES_ON = "what is done is kept, and the same command goes on once there is room"


def run(
    plan: Plan,
    out: Path,
    *,
    name: str = "local",
    workers: int | None = None,
    latex: bool = False,
    markdown: bool = False,
) -> pl.DataFrame:
    """Do all cells of a plan and write its tables and page; returns the index, see ``index.SCHEMA``.

    Args:
        plan: what is to be done.
        out: the study's folder.
        name: the executor, ``local`` or ``ray``.
        workers: how many cells at once; None: as many as processors and memory allow.
        latex, markdown: write the tables in these forms too.

    Raises:
        InputError: for models or facts that there are not, another run in this folder, a full disk, and, when all
            that could be done is done and in the tables, for cells that failed.
    """
    check_writable(out)
    found = ground(plan)
    with at_work(out):
        found.write(out)
        write_json(out / PLAN, plan.model_dump(mode="json"))
        with record(out, "study", plan.model_dump(mode="json"), seed=plan.seed, models=found.models):
            return run_cells(
                out,
                lambda: grid(plan, found, held_in(out)),
                lambda needs: executor(name, out, workers, needs),
                keep_models=plan.keep_models,
                then=lambda: _report(out, latex=latex, markdown=markdown),
            )


def run_cells(
    out: Path,
    expand: Callable[[], Grid],
    made: Callable[[list[int]], Executor],
    *,
    keep_models: bool = False,
    then: Callable[[], None] | None = None,
) -> pl.DataFrame:
    """Do all cells that ``expand`` gives, in a folder that is held (``at_work``); see ``Scheduler``.

    Args:
        then: what is done with the cells that are done, before it is told that others failed.

    Raises:
        InputError: if cells failed, once all others are done.
    """
    scheduler = Scheduler(out, expand, made, keep_models=keep_models)
    scheduler.run()
    if then:
        then()
    failures = list(scheduler.failures())
    if failures:
        cell, error = failures[0]
        place = cell.folder(out) / "error.txt"
        raise InputError(
            f"{len(failures)} {'cell' if len(failures) == 1 else 'cells'} failed (knowshift study status {out}); "
            f"the same command tries again; the first, {place}: {error}"
        )
    return pl.read_parquet(out / index.INDEX)


def _report(out: Path, *, latex: bool, markdown: bool) -> None:
    """The tables, and the page where what draws it is installed."""
    from knowshift.report import study as report

    report.export(out, latex=latex, markdown=markdown)
    if all(find_spec(package) for package in DRAWN_BY):
        report.write(out)


@contextmanager
def at_work(out: Path) -> Iterator[None]:
    """Hold the folder; it is free again when this process ends, however it does.

    Raises:
        InputError: if another process holds it, or its disk is full.
    """
    make_folder(out)
    try:
        # A moment's patience with `status`, which tries the lock to see whether anybody holds it.
        with FileLock(out / LOCK, timeout=PATIENCE), full_disk_refused(out, GOES_ON):
            yield
    except Timeout as error:
        raise InputError(f"{out}: a study is at work in this folder already") from error


def is_at_work(out: Path) -> bool:
    """Whether a process holds the folder."""
    try:
        with at_work(out):
            return False
    except InputError:
        return True


def status(out: Path) -> pl.DataFrame:
    """How a study stands, from its files; of one at work which cells are running is as of its last word.

    Raises:
        InputError: if ``out`` is no study's folder.
    """
    if not (out / index.GRID).is_file():
        raise InputError(f"{out}: no study's folder (it has no {index.GRID})")
    running: frozenset[str] = frozenset()
    if (out / index.INDEX).is_file() and is_at_work(out):
        last = pl.read_parquet(out / index.INDEX)
        running = frozenset(last.filter(pl.col("state") == "running")["key"].to_list())
    return index.read(out, running=running)


def held_in(out: Path) -> Held:
    """What each level holds, from the mastery cells that are done in a study's folder."""

    def held(cell: Cell) -> Mapping[int, int] | None:
        folder = cell.folder(out)
        if read_done(folder, cell.key) is None:
            return None
        try:
            return level_counts(read_mastery(folder), "train", "id")
        except InputError:  # damaged: it is done again before anything reads it
            return None

    return held
