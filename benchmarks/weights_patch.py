"""Patches against checkpoints: what they take on disk and in time, as whole processes run in turn.

    python benchmarks/weights_patch.py BASE TUNED --out DIR [--runs 3]

BASE and TUNED are checkpoint folders. Writes DIR/figures.json and prints it as two tables. Every command runs once
before it is timed, so files are in the page cache, digests of models are remembered and loops are compiled.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

FRACTIONS = ("0.01", "0.03", "0.05", "0.1", "0.2", "0.4", "0.6")


def run(*arguments: object) -> tuple[float, float]:
    """Seconds and peak resident megabytes of one ``knowshift`` command."""
    command = [sys.executable, "-m", "knowshift", *map(str, arguments)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("tuned")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    out, pair = options.out, (options.base, options.tuned)
    seven = [part for fraction in FRACTIONS for part in ("--fraction", fraction)]
    patch = out / "patches" / "0.2.patch"
    commands = {
        "restore, 1 fraction": ("restore", *pair, "--fraction", "0.2", "--out", out / "one"),
        "restore --patch, 1 fraction": ("restore", *pair, "--fraction", "0.2", "--out", out / "patches", "--patch"),
        "restore, 7 fractions": ("restore", *pair, *seven, "--out", out / "seven"),
        "restore --patch, 7 fractions": ("restore", *pair, *seven, "--out", out / "patches", "--patch"),
        "patch apply": ("patch", "apply", patch, options.tuned, "--out", out / "applied"),
        "patch revert": ("patch", "revert", patch, out / "applied", "--out", out / "reverted"),
        "patch show": ("patch", "show", patch),
    }
    for command in commands.values():
        run(*command)
    timed: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(options.runs):
        for name, command in commands.items():
            timed[name].append(run(*command))
    weights = sum(file.stat().st_size for file in Path(options.tuned).glob("*.safetensors"))
    sizes = {}
    for fraction in FRACTIONS:
        file = out / "patches" / f"{fraction}.patch"
        shown = subprocess.run(
            [sys.executable, "-m", "knowshift", "patch", "show", file, "--json"], capture_output=True, check=True
        )
        facts = json.loads(shown.stdout)
        sizes[fraction] = {
            "bytes": facts["bytes"],
            "restored": facts["settings"]["restored"],
            "changed": facts["changed"],
            "bits_per_change": facts["bits_per_change"],
            "share_of_checkpoint": facts["bytes"] / weights,
        }
    figures = {
        "checkpoint_bytes": weights,
        "sizes": sizes,
        "seconds": {name: statistics.median(second for second, _ in runs) for name, runs in timed.items()},
        "megabytes": {name: max(peak for _, peak in runs) for name, runs in timed.items()},
        "runs": options.runs,
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    for folder in ("one", "seven", "applied", "reverted"):
        shutil.rmtree(out / folder)
    print("| fraction | restored | of them changed | patch | bits per changed weight | of the checkpoint |")
    print("|---|---|---|---|---|---|")
    for fraction, row in sizes.items():
        print(
            f"| {fraction} | {row['restored']:,} | {row['changed']:,} | {row['bytes'] / 1e6:.2f} MB "
            f"| {row['bits_per_change']:.2f} | {row['share_of_checkpoint']:.2%} |"
        )
    print("\n| command | seconds, median | peak resident |\n|---|---|---|")
    for name, seconds in figures["seconds"].items():
        print(f"| {name} | {seconds:.2f} | {figures['megabytes'][name]:.0f} MB |")


if __name__ == "__main__":
    main()
