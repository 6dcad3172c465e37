"""What a study costs beside its cells' work: scheduling, in real worker processes, and the tables.

    python benchmarks/study.py [--workers N] [CELLS ...]

Prints, for each number of cells that do no work, milliseconds a cell of the whole study beyond what its workers take
to start, and of the same command again, which finds everything done; then seconds for all tables of a study of about
as many cells with measurements in them.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from knowshift.study.cell import Cell
from knowshift.study.export import export
from plantedstudy import Planted, Truth
from stubs import diamonds, local, study

# Cells of one training set of a planted study, with six ways to be measured.
MEASURED = 6
# Of studies that last a second or two the quickest of so many counts.
TRIES, LONG = 3, 1000


def seconds(out: Path, cells: list[Cell], workers: int) -> float:
    """How long a study of stubs takes."""
    begun = time.monotonic()
    study(out, cells, local(workers))
    return time.monotonic() - begun


def starting(out: Path, workers: int) -> float:
    """How long it takes with as many cells as workers, so many that none is idle; the time of a cell taken off."""
    return seconds(out, [Cell("stub", {"n": number, "seconds": 2.0}) for number in range(workers)], workers) - 2.0


def scheduled(folder: Path, count: int, workers: int) -> tuple[float, float]:
    """Milliseconds a cell, the first time and again."""
    tries = range(TRIES if count < LONG else 1)
    start = min(starting(folder / f"start-{number}", workers) for number in range(TRIES))
    first = min(seconds(folder / f"study-{number}", diamonds(count // 5), workers) for number in tries)
    again = min(seconds(folder / "study-0", diamonds(count // 5), workers) for _ in tries)
    return 1000 * (first - start) / count, 1000 * again / count


def exported(out: Path, count: int) -> tuple[int, float]:
    """How many cells a planted study of about ``count`` cells has, and how long its tables take."""
    seeds = max(1, count // (5 * 7 * MEASURED))
    sizes = (60, 120, 240, 480, 960, 1920, 3840)[: max(1, count // (5 * seeds * MEASURED))]
    planted = Planted(out, Truth(), sizes=sizes, seeds=range(seeds), methods=("sft",))
    cells = planted.write().height
    begun = time.monotonic()
    export(out)
    return cells, time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("cells", type=int, nargs="*", default=[10, 100, 1000])
    given = parser.parse_args()
    print("cells  ms a cell  again, ms a cell")
    for count in given.cells:
        with tempfile.TemporaryDirectory() as folder:
            first, again = scheduled(Path(folder), count, given.workers)
        print(f"{count:5}  {first:9.1f}  {again:16.1f}", flush=True)
    print("cells  tables, s")
    for count in given.cells:
        with tempfile.TemporaryDirectory() as folder:
            cells, taken = exported(Path(folder), count)
        print(f"{cells:5}  {taken:9.1f}", flush=True)


if __name__ == "__main__":
    main()
