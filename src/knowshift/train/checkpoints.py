"""Where a run's checkpoints lie on the way: beside the folder it will write, bound to what the run is made from.

A checkpoint is whole or absent: it is written under a name that is never read and takes its own when every byte is on
the disk. Knows files; what is in them is transformers' business.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from knowshift.errors import InputError
from knowshift.files import digest_of, make_folder, read_json, write_json
from knowshift.train import processes

RECORD = "knowshift.json"
PREFIX = "checkpoint-"
# What may differ where a run goes on from the checkpoint of another: the rest is in the checkpoint or would not fit it.
FREE = frozenset({"epochs", "max_steps", "scheduler", "warmup", "max_grad_norm", "gradient_checkpointing"})


# Options that a run's result does not depend on, or that digests stand for.
_ASIDE = ("model", "data", "replay", "chat_template", "out", "save_steps", "resume_from")


def made_from(options: Mapping[str, Any], files: Mapping[str, str], **digests: str | None) -> dict[str, Any]:
    """All that decides a run's result.

    Args:
        options: as plain values.
        files: digests of files that options name, by option; what is in a file decides, not where it lies.
        digests: of what else the run reads, by role.
    """
    rest = {name: files.get(name, value) for name, value in options.items() if name not in _ASIDE}
    rest["set"] = {name: files.get(name, value) for name, value in options["set"].items()}
    return {**digests, "processes": processes.count(), "options": rest}


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Let one process at a time write ``out``, checkpoints on the way included.

    Raises:
        InputError: another one does.
    """
    lock = FileLock(make_folder(out.absolute().parent) / f".{out.absolute().name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"--out {out}: another run is writing this folder") from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class Checkpoints:
    """The checkpoints of one run.

    Args:
        out: the folder the run will write.
        made_from: all that decides the run's result, as JSON values: digests of base and data, options.
    """

    def __init__(self, out: Path, made_from: Mapping[str, Any]) -> None:
        out = out.absolute()
        self.made_from = dict(made_from)
        self.folder = out.parent / f".{out.name}.{digest_of(self.made_from)[:12]}.checkpoints"
        self.others = [
            other for other in out.parent.glob(f".{glob.escape(out.name)}.*.checkpoints") if other != self.folder
        ]

    def last(self) -> Path | None:
        """The last whole checkpoint, if there is one."""
        return last_in(self.folder)

    @contextmanager
    def saving(self, step: int, *, main: bool = True, wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
        """Yield an empty folder whose one sub-folder becomes the checkpoint of ``step``; older ones then go.

        Args:
            step: updates made.
            main: whether this process is the one that renames.
            wait: returns when every process has come here.

        Raises:
            InputError: the disk is full; the checkpoint before is untouched.
        """
        partial = self.folder / "partial"
        if main:
            shutil.rmtree(partial, ignore_errors=True)
            make_folder(partial)
        wait()
        try:
            with disk_watched(self.folder, "; the checkpoint before this one is whole"):
                yield partial
                wait()
                if main:
                    self._finish(partial / f"{PREFIX}{step}", step)
        finally:
            if main:
                shutil.rmtree(partial, ignore_errors=True)
        wait()

    def remove(self) -> None:
        """The run is through: nothing of it is needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _finish(self, made: Path, step: int) -> None:
        files = sorted(file for file in made.rglob("*") if file.is_file())
        for file in files:
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        sizes = {file.relative_to(made).as_posix(): file.stat().st_size for file in files}
        write_json(made / RECORD, {"step": step, "made_from": self.made_from, "files": sizes})
        final = self.folder / made.name
        shutil.rmtree(final, ignore_errors=True)
        made.replace(final)
        for older in self.folder.glob(f"{PREFIX}*"):
            if older != final:
                shutil.rmtree(older, ignore_errors=True)


def last_in(folder: Path) -> Path | None:
    """The whole checkpoint of most steps in ``folder``."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal() and _whole(path)]
    return max(found, key=lambda path: int(path.name.removeprefix(PREFIX)), default=None)


def asked_for(path: Path, made_from: Mapping[str, Any]) -> Path:
    """The checkpoint that ``--resume-from`` names: itself, or a folder with some in it.

    Raises:
        InputError: there is none, or it was made from something else; naming what.
    """
    chosen = path if _whole(path) else last_in(path)
    if chosen is None:
        raise InputError(f"--resume-from {path}: no whole checkpoint of knowshift train here")
    theirs = read_json(chosen / RECORD)["made_from"]
    for name, here in made_from.items():
        if name != "options" and theirs.get(name) != here:
            what = {"base": "another model", "processes": "another number of processes"}.get(name, f"other {name}")
            raise InputError(f"--resume-from {path}: a checkpoint of {what}: {theirs.get(name)}, here it is {here}")
    left, right = _flat(theirs["options"]), _flat(made_from["options"])
    for name in sorted((left.keys() | right.keys()) - FREE):
        if left.get(name) != right.get(name):
            raise InputError(f"--resume-from {path}: made with {name} {left.get(name)}, here it is {right.get(name)}")
    return chosen


@contextmanager
def disk_watched(folder: Path, kept: str) -> Iterator[None]:
    """Say in one line that ``folder`` cannot take what is written; torch and safetensors have errors of their own.

    Raises:
        InputError: for a full disk, a quota or a limit on file size; other errors pass.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        said = ("No space left", "quota exceeded", "File too large", "inline_container", "PytorchStreamWriter")
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(words in str(error) for words in said):
            raise InputError(f"{folder}: the disk is full{kept}") from error
        raise


def _whole(path: Path) -> bool:
    """Whether every file is there in full: removing a folder is not one act, and disks lose what was not flushed."""
    if not (path / RECORD).is_file():
        return False
    record = read_json(path / RECORD)
    if not isinstance(record, dict) or not isinstance(record.get("made_from"), dict):
        return False
    return all(
        (path / name).is_file() and (path / name).stat().st_size == size for name, size in record["files"].items()
    )


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in options.items() if name != "set"}, **options["set"]}
