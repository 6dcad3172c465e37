"""What scheduling costs: studies of 10 to 1,000 cells that do no work, in real worker processes.

    python benchmarks/study.py [--workers N] [CELLS ...]

Prints, for each number of cells, milliseconds a cell of the whole study beyond what its workers take to start, and of
the same command again, which finds everything done.
"""

import argparse
import tempfile
import time
from pathlib import Path

from knowshift.study.cell import Cell
from knowshift.study.executors.local import Local
from knowshift.study.grid import Grid
from knowshift.study.run import at_work, run_cells


def cells(count: int) -> list[Cell]:
    """Chains of five: a cell, a model, two that read it, and one that reads one of those."""
    made = []
    for number in range(count // 5):
        first = Cell("stub", {"n": number})
        model = Cell("stub-model", {"weight": number}, (first,))
        left = Cell("stub", {"n": number, "side": "left"}, (model,))
        made += [Cell("stub", {"n": number, "side": "right"}, (model,)), Cell("stub", {"last": number}, (left, model))]
    return made


def seconds(out: Path, count: int, workers: int) -> float:
    """How long a study takes."""
    begun = time.monotonic()
    with at_work(out):
        run_cells(out, lambda: Grid(cells(count), []), lambda needs: Local(out, workers, needs))
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("cells", type=int, nargs="*", default=[10, 100, 1000])
    given = parser.parse_args()
    print("cells  ms a cell  again")
    for count in given.cells:
        with tempfile.TemporaryDirectory() as folder:
            start = seconds(Path(folder) / "start", 5, given.workers)
            first = seconds(Path(folder) / "study", count, given.workers)
            again = seconds(Path(folder) / "study", count, given.workers)
        print(f"{count:5}  {1000 * (first - start) / count:9.1f}  {1000 * again / count:5.1f}")


if __name__ == "__main__":
    main()
