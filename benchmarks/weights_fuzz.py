"""Hostile checkpoints in number: no crash, no hang, no file opened that the folder does not hold.

    python benchmarks/weights_fuzz.py --cases 100000

Each case is a real tiny checkpoint, damaged in one to three ways (see ``tests/weights/hostile.py``), opened, read and
paired. It must be read, and then by the safetensors library too, or refused in one line. Prints counts.
"""

import argparse
import faulthandler
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "weights")]

import hostile  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    faults = []
    slowest = (0.0, 0)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        real = hostile.real_checkpoints(place)
        for seed in range(arguments.first, arguments.first + arguments.cases):
            faulthandler.dump_traceback_later(1200, exit=True)  # a hang ends the run and says where
            way = hostile.spoil(seed, real[seed % 2], place / "case")
            began = time.process_time()
            try:
                with hostile.only_opening(place / "case"):
                    result = hostile.outcome(place / "case")
            except Exception as error:
                faults.append(f"seed {seed} ({way}): {type(error).__name__}: {str(error)[:300]}")
                result = "fault"
            slowest = max(slowest, (time.process_time() - began, seed))
            counts[way if "+" not in way else "several", result] += 1
    faulthandler.cancel_dump_traceback_later()
    print(f"{'damage':<14}{'read':>9}{'refused':>9}{'fault':>9}")
    for way in sorted({way for way, _ in counts}):
        print(f"{way or 'none':<14}" + "".join(f"{counts[way, result]:>9,}" for result in ("read", "refused", "fault")))
    print(
        f"{arguments.cases:,} cases in {time.perf_counter() - started:,.0f} s; {len(faults)} faults; "
        f"slowest {slowest[0] * 1000:.0f} ms of processor time (seed {slowest[1]})"
    )
    for fault in faults[:20]:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
