"""``run.json``: what was run, with which versions, on which models, so that it can be run again."""

import datetime
import importlib.metadata
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knowshift import __version__
from knowshift.files import check_writable, write_json

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "safetensors", "polars", "numpy", "numba")


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of what the figures depend on; packages that are not installed are left out."""
    found = {"knowshift": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def record(
    out: Path, command: str, options: Mapping[str, Any], *, seed: int, models: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Write ``out/run.json`` when the block ends without an error.

    Args:
        out: the run folder; it is created when something is written.
        command: the sub-command, such as ``mastery``.
        options: every option as resolved, defaults included.
        seed: the run's seed.
        models: digest of each model by its role, such as ``{"base": "sha256:..."}``.

    Yields:
        The record, to which the block may add what it learns on the way.
    """
    check_writable(out)
    entry: dict[str, Any] = {
        "command": command,
        "argv": sys.argv[1:],
        "options": {name: _plain(value) for name, value in options.items()},
        "versions": versions(),
        "models": dict(models or {}),
        "seed": seed,
        "started": now(),
    }
    yield entry
    entry["ended"] = now()
    write_json(out / "run.json", entry)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
