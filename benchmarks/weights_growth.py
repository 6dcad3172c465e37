"""Time and peak anonymous memory of diff and restore over pairs of growing size, beside what reading and writing cost.

A whole process costs its start-up and so much a byte. The start-up is measured apart, on a pair of next to no weights,
and taken off before rates are compared. Restoring writes a file as large as the tuned one, so that a plain copy of
that file stands beside it.
"""

import json
import os
import shutil
import statistics
import sys
from pathlib import Path

from weights_compare import timed
from weights_pairs import make

UPDATE = 2.5e-5
_HEAD = "| billions | GB a side | diff s | beyond start-up, s per GB | peak GB | restore s | beyond start-up, s per GB "
_HEAD += "| peak GB | copying one file s |"


def measure(out: Path, sizes: list[float], *, runs: int, cold: bool, keep: bool) -> str:
    """A table, one row a size, medians of ``runs``; figures in ``out/growth.json``.

    Pairs lie in ``out`` while they are measured.
    """
    out.mkdir(parents=True, exist_ok=True)
    table = [_HEAD, "|" + "---|" * 9]
    figures: list[dict[str, float]] = []
    for billions in [0.001, *sizes]:
        pair = out / f"pair-{billions:g}"
        if not (pair / "tuned" / "config.json").exists():
            make(pair, billions, UPDATE, 0)
        row = _row(pair, out, runs, cold=cold) | {"billions": billions}
        figures.append(row)
        start = figures[0]
        gigabytes = row["gigabytes"] - start["gigabytes"]
        rates = {
            f"{name}_rate": (row[f"{name}_s"] - start[f"{name}_s"]) / gigabytes if gigabytes else float("nan")
            for name in ("diff", "restore")
        }
        part = "| {billions:g} | {gigabytes:.2f} | {diff_s:.2f} | {diff_rate:.2f} | {diff_gb:.3f} | {restore_s:.2f} | "
        table.append((part + "{restore_rate:.2f} | {restore_gb:.3f} | {copy_s:.2f} |").format(**row, **rates))
        (out / "growth.json").write_text(json.dumps(figures, indent=2))
        (out / "growth.md").write_text("\n".join(table) + "\n")
        if not keep:
            shutil.rmtree(pair)
    return "\n".join(table)


def _row(pair: Path, out: Path, runs: int, *, cold: bool) -> dict[str, float]:
    files = [pair / side / "model.safetensors" for side in ("base", "tuned")]
    sides = [str(file.parent) for file in files]
    ours = [sys.executable, "-m", "knowshift"]
    commands = {
        "diff": [*ours, "diff", *sides, "--out", str(out / "result"), "--region", "all"],
        "restore": [*ours, "restore", *sides, "--out", str(out / "result"), "--region", "all", "--fraction", "0.2"],
        "copy": ["cp", str(files[1]), str(out / "result")],
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    size = files[0].stat().st_size
    for _ in range(runs):
        for name, command in commands.items():
            if name != "diff" and shutil.disk_usage(out).free < 1.1 * size:
                print(f"{pair.name}: no room on this disk to write {size / 1e9:.0f} GB, {name} left out")
                measured[name].append((float("nan"), float("nan")))
                continue
            for file in files:
                _drop(file) if cold else _load(file)
            os.sync()  # nobody writes out the last run's files on this one's time
            measured[name].append(timed(command))
            shutil.rmtree(out / "result") if (out / "result").is_dir() else (out / "result").unlink()
    row = {"gigabytes": size / 1e9}
    for name, values in measured.items():
        row[f"{name}_s"] = statistics.median(seconds for seconds, _ in values)
        row[f"{name}_gb"] = max(peak for _, peak in values)
    return row


def _drop(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def _load(file: Path) -> None:
    with file.open("rb") as source:
        while source.read(1 << 24):
            pass
