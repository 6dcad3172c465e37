"""What each kind of cell does: a step of the command line, or the restoration curve; and the doing of one cell.

A kind names the files it leaves and those among them that other cells read. Work goes on in a folder that an earlier
try left behind: steps that can go on where they were do so. Everything a kind needs is imported when it is done, so
that a scheduler can list kinds and load no model.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from filelock import FileLock, Timeout

from knowshift.errors import InputError
from knowshift.files import digest_file, digest_of, make_folder, write_json
from knowshift.memory import return_freed_memory
from knowshift.study.cell import Task
from knowshift.study.marks import CELL, DONE, Done, mark_done, read_done, read_mark
from knowshift.study.peak import Peak

# Of a process that was told to end; longer means that it never was.
LOCK_SECONDS = 60.0
# Of work, before freed memory is worth collecting.
WORTH_SECONDS = 1.0
LOCK, LOG = ".lock", "log.txt"
KEPT = (LOCK, LOG)
MODEL = "model"  # a trained model's folder in its cell's


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of cell.

    Attributes:
        function: ``module:name`` of what does it: called with the task, the study's folder and the cell's.
        files: what it leaves; the first ones are what tables are made from.
        read: those that other cells read. Times are written only to files that are not among them.
        model: whether it leaves a model, kept only until it is measured.
    """

    function: str
    files: tuple[str, ...]
    read: tuple[str, ...]
    model: bool = False

    def load(self) -> Callable[[Task, Path, Path], None]:
        """The function."""
        module, _, name = self.function.partition(":")
        found: Callable[[Task, Path, Path], None] = getattr(import_module(f"knowshift.study.{module}"), name)
        return found


_DONE_BY_STEP = ("metrics.json", "run.json")
KINDS = {
    "mastery": Kind("asked:mastery", ("mastery.parquet", *_DONE_BY_STEP), ("mastery.parquet",)),
    "select": Kind("asked:select", ("train.jsonl",), ("train.jsonl",)),
    "train": Kind("asked:train", ("train_log.parquet", "run.json"), (), model=True),
    "eval": Kind("asked:evaluate", ("answers.parquet", *_DONE_BY_STEP), ("answers.parquet",)),
    "drift": Kind("asked:drift", ("drift.parquet", *_DONE_BY_STEP), ("drift.parquet",)),
    "diff": Kind(
        "asked:diff",
        ("concentration.parquet", "modules.parquet", *_DONE_BY_STEP),
        ("concentration.parquet", "modules.parquet"),
    ),
    "sweep": Kind("restored:sweep", ("answers.parquet", "curve.parquet", "choice.json", "run.json"), ("choice.json",)),
    "confirm": Kind("restored:confirm", ("answers.parquet", *_DONE_BY_STEP), ("answers.parquet",)),
    # No work: what scheduling costs, and how it takes failures, is measured with these.
    "stub": Kind("stub:stub", ("stub.json",), ("stub.json",)),
    "stub-model": Kind("stub:model", ("stub.json",), (), model=True),
}


def do(task: Task, out: Path) -> Done:
    """Do one cell and mark it done.

    Args:
        task: the cell, whose inputs are done.
        out: the study's folder.

    Raises:
        InputError: if another process is at work on it, or an input is not done; and whatever its work raises.
    """
    folder = make_folder(task.folder(out))
    try:
        with FileLock(folder / LOCK, timeout=LOCK_SECONDS):
            return _do(task, out, folder)
    except Timeout as error:
        raise InputError(f"{folder}: another process is at work here") from error


def _do(task: Task, out: Path, folder: Path) -> Done:
    kind = KINDS[task.kind]
    inputs = {key: _read(task, out, name) for name, key in task.inputs.items()}
    _begin(task, folder, inputs)
    started, peak = time.monotonic(), Peak()
    kind.load()(task, out, folder)
    seconds = time.monotonic() - started
    if seconds > WORTH_SECONDS:
        return_freed_memory()
    result = result_of(kind, folder)
    return mark_done(
        folder,
        task.key,
        files=kind.files,
        result=result,
        inputs=inputs,
        seconds=seconds,
        peak_bytes=peak.read(),
    )


def _begin(task: Task, folder: Path, inputs: dict[str, str]) -> None:
    """Note what is begun; what an earlier try made of other inputs is removed, and its mark in any case."""
    (folder / DONE).unlink(missing_ok=True)
    begun = {**task.as_json(), "read": inputs}
    if (folder / CELL).exists() and read_mark(folder / CELL).get("read") != inputs:
        for left in folder.iterdir():
            if left.name not in KEPT:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_json(folder / CELL, begun)


def result_of(kind: Kind, folder: Path) -> str:
    """A digest of what other cells read of a cell of this kind."""
    if kind.model:
        return model_digest(folder / MODEL)
    return digest_of({name: digest_file(folder / name) for name in kind.read})


def model_digest(folder: Path) -> str:
    """The digest of a trained model's weights, configuration and tokenizer."""
    from knowshift.models import digest

    return digest(folder)


def _read(task: Task, out: Path, kind: str) -> str:
    done = read_done(task.input(out, kind), task.inputs[kind])
    if done is None:
        raise InputError(f"{task.input(out, kind)}: not done, though {task.kind} reads it")
    return done.result
