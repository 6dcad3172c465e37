"""Whole files or none: everything is written beside its final name and renamed when complete."""

import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowshift.errors import InputError

if TYPE_CHECKING:
    import polars as pl

_KINDS = ("partial", "retired")  # what is being written, and what it takes the place of


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync and rename it, on failure remove it."""
    make_folder(path.parent)
    remove_leftovers(path)
    partial = _beside(path, "partial")
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it takes the place of ``path``."""
    make_folder(path.parent)
    remove_leftovers(path)
    partial = _beside(path, "partial")
    try:
        partial.mkdir()
        yield partial
        if path.exists():
            retired = _beside(path, "retired")
            path.replace(retired)
            partial.replace(path)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def full_disk_refused(folder: Path, kept: str = "nothing was kept") -> Iterator[None]:
    """Say in one line that the disk of ``folder`` filled up; what lies in it under a final name is whole.

    Args:
        kept: what the line says of it.

    Raises:
        InputError: for a full disk or quota; other errors pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"{folder}: the disk filled up; {kept}") from error


def free_room(path: Path) -> int:
    """Free bytes on the disk where ``path`` is or, while it is not there, would be made."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def remove_leftovers(path: Path) -> None:
    """Remove what attempts at ``path`` by processes that were killed left beside it."""
    for kind in _KINDS:
        for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(platform.node())}-*.{kind}"):
            owner = left.name.removesuffix(f".{kind}").rpartition("-")[2]
            if owner.isdecimal() and (int(owner) == os.getpid() or not _alive(int(owner))):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _beside(path: Path, kind: str) -> Path:
    """A hidden name beside ``path`` that tells who made it."""
    return path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.{kind}")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it lives, but is somebody else's
        return True
    return True


def make_folder(path: Path) -> Path:
    """Create ``path`` with its parents.

    Raises:
        InputError: if it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise InputError(f"cannot write to the folder {path}: permission denied")
    return path


def check_writable(path: Path) -> None:
    """Refuse a folder that could not be written later, before work is spent on what would go into it.

    Raises:
        InputError: if ``path``, or the nearest folder above it that exists, is no folder or not writable.
    """
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise InputError(f"cannot create the folder {path}: {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"cannot create or write the folder {path}: no permission to write in {nearest}")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON; a NaN is a bug here, never data."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: naming the file and place if it is missing or malformed.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
        raise InputError(f"{path}: not valid JSON: {error}") from error


def write_parquet(path: Path, table: "pl.DataFrame") -> None:
    """Write a table, whole or not at all."""
    from polars.exceptions import PolarsError

    with atomic_file(path) as partial:
        try:
            table.write_parquet(partial)
        except PolarsError as error:  # what the system said, such as that the disk is full, is in its words alone
            if found := re.search(r"os error (\d+)", str(error)):
                raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
            raise


def read_parquet(path: Path, columns: Iterable[str] = ()) -> "pl.DataFrame":
    """Read a table.

    Raises:
        InputError: naming the file if it is missing or damaged, or lacks one of ``columns``.
    """
    import polars as pl

    if not path.is_file():  # polars would take a pattern, or a folder of files
        raise InputError(f"{path}: no such file")
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from error
    if missing := [column for column in columns if column not in table.columns]:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}")
    return table


def digest_of(value: Any) -> str:
    """A short digest of a JSON-able value: the name of what was computed from it."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
