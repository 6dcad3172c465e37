"""Time and peak anonymous memory of diff and restore over pairs of growing size."""

import json
import os
import shutil
import sys
from pathlib import Path

from weights_compare import timed
from weights_pairs import make

UPDATE = 2.5e-5


def measure(out: Path, sizes: list[float], *, cold: bool, keep: bool) -> str:
    """A table, one row a size; figures in ``out/growth.json``. Pairs lie in ``out`` while they are measured."""
    out.mkdir(parents=True, exist_ok=True)
    head = "| billions | GB a side | diff s | s per GB | peak GB | restore s | s per GB | peak GB |"
    table = [head, "|" + "---|" * 8]
    figures = []
    for billions in sizes:
        pair = out / f"pair-{billions:g}"
        if not (pair / "tuned" / "config.json").exists():
            make(pair, billions, UPDATE, 0)
        files = [pair / side / "model.safetensors" for side in ("base", "tuned")]
        gigabytes = files[0].stat().st_size / 1e9
        row: dict[str, float] = {"billions": billions, "gigabytes": gigabytes}
        sides = [str(file.parent) for file in files]
        for name, options in (("diff", ["--region", "all"]), ("restore", ["--region", "all", "--fraction", "0.2"])):
            for file in files:
                _drop(file) if cold else _load(file)
            command = [sys.executable, "-m", "knowshift", name, *sides, "--out", str(out / "result"), *options]
            row[f"{name}_s"], row[f"{name}_gb"] = timed(command)
            shutil.rmtree(out / "result")
        figures.append(row)
        part = (
            "| {billions:g} | {gigabytes:.2f} | {diff_s:.2f} | {0:.2f} | {diff_gb:.3f} | {restore_s:.2f} | {1:.2f} | "
        )
        rates = (row["diff_s"] / gigabytes, row["restore_s"] / gigabytes)
        table.append((part + "{restore_gb:.3f} |").format(*rates, **row))
        (out / "growth.json").write_text(json.dumps(figures, indent=2))
        if not keep:
            shutil.rmtree(pair)
    return "\n".join(table)


def _drop(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def _load(file: Path) -> None:
    with file.open("rb") as source:
        while source.read(1 << 24):
            pass
