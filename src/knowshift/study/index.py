"""Which cells a study has, and how each of them stands: ``cells.parquet``, a row a cell.

Read again out of the cells' folders alone; ``grid.json`` beside them lists the cells that the plan asks for, so that
one that was never begun is a row too. A row whose state is not ``done`` has nothing to read in its folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from knowshift.errors import InputError
from knowshift.files import read_json, write_json, write_parquet
from knowshift.study.cell import Cell, Task
from knowshift.study.marks import read_done, read_error

INDEX, GRID = "cells.parquet", "grid.json"
# done: its files can be read. running: in work now. failed: error says why; the same command tries again. waiting: not
# begun, or what it needs is not done. missing: there can be none, and error says why (a level with too few facts).
STATES = ("done", "failed", "running", "waiting", "missing")
LABELS: dict[str, Any] = {
    "role": pl.String,  # base, tuned, or instruct: another model's answers to compare with
    "model": pl.String,  # the base, as the plan names it
    "level": pl.Int64,  # of the training set; null for a mix of levels
    "mix": pl.String,  # of the training set, as `select --mix` reads it; null for one level
    "asked_size": pl.String,  # as in the plan, where "all" may stand
    "size": pl.Int64,  # facts trained on; until mastery is known, as in the plan
    "seed": pl.Int64,  # of the training set and the training
    "method": pl.String,  # of training, as the plan names it
    "split": pl.String,  # of the facts asked
    "form": pl.String,  # how they are asked
    "mode": pl.String,  # of drift
}
SCHEMA: dict[str, Any] = {
    "key": pl.String,
    "kind": pl.String,
    **LABELS,
    "state": pl.String,
    "seconds": pl.Float64,
    "peak_bytes": pl.Int64,
    "error": pl.String,  # last line
    "folder": pl.String,  # in the study's folder
}


@dataclass(frozen=True, slots=True)
class Missing:
    """A cell that there cannot be, and why."""

    kind: str
    labels: Mapping[str, Any]
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a cell stands."""

    state: str
    seconds: float | None = None
    peak_bytes: int | None = None
    error: str | None = None


def write_grid(out: Path, cells: Sequence[Cell], missing: Sequence[Missing]) -> None:
    """Keep what the plan asks for, so that ``read`` needs neither plan nor models."""
    lacking = [{"kind": one.kind, "labels": dict(one.labels), "why": one.why} for one in missing]
    write_json(out / GRID, {"cells": [cell.as_task().as_json() for cell in cells], "missing": lacking})


def table(tasks: Sequence[Task], standing: Sequence[Standing], missing: Sequence[Missing]) -> pl.DataFrame:
    """One row a cell, with the columns of ``SCHEMA``."""
    blank = dict.fromkeys(SCHEMA)
    rows = []
    for task, stands in zip(tasks, standing, strict=True):
        rows.append(
            {
                **blank,
                "key": task.key,
                "kind": task.kind,
                **{name: task.labels.get(name) for name in LABELS},
                "state": stands.state,
                "seconds": stands.seconds,
                "peak_bytes": stands.peak_bytes,
                "error": stands.error,
                "folder": task.folder(Path()).as_posix(),
            }
        )
    for one in missing:
        labels = {name: one.labels.get(name) for name in LABELS}
        rows.append({**blank, "kind": one.kind, **labels, "state": "missing", "error": one.why})
    return pl.DataFrame(rows, schema=SCHEMA)


def write(out: Path, frame: pl.DataFrame) -> None:
    """Write ``cells.parquet``, whole or not at all."""
    write_parquet(out / INDEX, frame)


def read(out: Path, *, running: frozenset[str] = frozenset()) -> pl.DataFrame:
    """How the cells of a study stand, from their folders; files are not read, only what marks them as done.

    Args:
        out: the study's folder.
        running: keys of the cells that are in work now; a folder cannot tell them from cells cut short.

    Raises:
        InputError: if ``out`` is no study's folder.
    """
    try:
        listed = read_json(out / GRID)
        tasks = [Task(**values) for values in listed["cells"]]
        missing = [Missing(**values) for values in listed["missing"]]
    except (TypeError, KeyError) as error:
        raise InputError(f"{out / GRID}: not the list of a study's cells: {error}") from error
    return table(tasks, [stands(out, task, running) for task in tasks], missing)


def stands(out: Path, task: Task, running: frozenset[str] = frozenset()) -> Standing:
    """How one cell stands."""
    if task.key in running:
        return Standing("running")
    folder = task.folder(out)
    if done := read_done(folder, task.key):
        return Standing("done", done.seconds, done.peak_bytes)
    error = read_error(folder)
    return Standing("waiting") if error is None else Standing("failed", error=error)
