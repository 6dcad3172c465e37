"""What a cell's folder says about the cell: done, failed, or neither. The folder is the only memory of a study.

``cell.json`` says what the cell is; ``done.json``, written last, that it is done, with a digest of every file it made
and of what it was made from; ``failed.json`` what went wrong, the whole of it in ``error.txt``. A cell counts as done
only while its files are as they were written and its inputs are what it read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from knowshift.errors import InputError
from knowshift.files import atomic_file, digest_file, digest_of, make_folder, read_json, write_json
from knowshift.runs import now

CELL, DONE, FAILED, ERROR = "cell.json", "done.json", "failed.json", "error.txt"


@dataclass(frozen=True, slots=True)
class Done:
    """The mark of a finished cell.

    Attributes:
        key: the cell's name in full.
        outputs: SHA-256 and length in bytes of every file, by its name in the folder.
        result: digest of what other cells read of it.
        inputs: ``result`` of each input by its key, as it was read.
        seconds: how long the work took.
        peak_bytes: most memory its process held at once; None where the system does not tell.
        ended: when, in UTC.
    """

    key: str
    outputs: dict[str, list[Any]]
    result: str
    inputs: dict[str, str]
    seconds: float
    peak_bytes: int | None
    ended: str


def mark_done(
    folder: Path,
    key: str,
    *,
    files: Sequence[str],
    result: str | None,
    inputs: Mapping[str, str],
    seconds: float,
    peak_bytes: int | None,
) -> Done:
    """Write ``done.json``.

    Args:
        files: what the cell made; the others in its folder are nobody's.
        result: digest of what other cells read of it; by default of all its files.
    """
    outputs = {name: [digest_file(folder / name), (folder / name).stat().st_size] for name in files}
    made = result or digest_of({name: entry[0] for name, entry in outputs.items()})
    done = Done(key, outputs, made, dict(inputs), round(seconds, 3), peak_bytes, now())
    write_json(folder / DONE, asdict(done))
    for name in (FAILED, ERROR):
        (folder / name).unlink(missing_ok=True)
    return done


def read_done(folder: Path, key: str) -> Done | None:
    """The mark of a finished cell, its files not looked at; None if there is none, or none that can be read."""
    values = read_mark(folder / DONE)
    try:
        done = Done(**values)
        return done if done.key == key else None
    except TypeError:
        return None


def verified(folder: Path, key: str, inputs: Mapping[str, str] | None) -> Done | None:
    """The mark of a finished cell whose files are as they were written.

    Args:
        inputs: ``result`` of each input by its key as it is now; None if one of them is not done.
    """
    done = read_done(folder, key)
    if done is None or inputs is None or done.inputs != dict(inputs):
        return None
    return done if all(_intact(folder / name, *entry) for name, entry in done.outputs.items()) else None


def mark_failed(folder: Path, traceback: str) -> str:
    """Write ``failed.json`` and ``error.txt``; returns the error's last line."""
    lines = [line for line in traceback.strip().splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "failed without a word"
    last = last.removeprefix("knowshift.errors.InputError: ")
    make_folder(folder)
    with atomic_file(folder / ERROR) as partial:
        partial.write_text(traceback, "utf-8")
    write_json(folder / FAILED, {"error": last, "ended": now()})
    return last


def read_error(folder: Path) -> str | None:
    """The last line of the error that a cell failed with; None if it did not."""
    values = read_mark(folder / FAILED)
    return str(values.get("error", "")) if values else None


def read_mark(path: Path) -> dict[str, Any]:
    """What a mark holds; nothing if it is missing or damaged, for then it marks nothing."""
    try:
        values = read_json(path)
    except InputError:
        return {}
    return values if isinstance(values, dict) else {}


def _intact(path: Path, digest: str, size: int) -> bool:
    try:
        return path.stat().st_size == size and digest_file(path) == digest
    except OSError:
        return False
