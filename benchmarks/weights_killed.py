"""Commands killed at many random moments: whatever lies under a final name is whole, and the same command completes.

    python benchmarks/weights_killed.py --moments 50

Each moment is drawn from the whole run, start-up to exit, of ``diff``, ``restore`` (three fractions), ``restore
--patch`` and ``merge`` on a pair of twenty million weights; every third process is asked to end rather than killed,
and then must leave nothing at all (see ``tests/weights/killing.py``). Prints counts.
"""

import argparse
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "weights")]

from killing import COMMANDS, Trial  # noqa: E402

import tiny  # noqa: E402

HOW = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGINT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=50, help="for each command")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        base = tiny.checkpoint(Path(name) / "base", hidden=1024)
        tuned = tiny.nudge(base, Path(name) / "tuned", scale=0.002)
        for command in COMMANDS:
            trial = Trial(command, base, tuned, Path(name) / command.replace(" ", ""))
            for number in range(arguments.moments):
                trial.stop(draw.random(), HOW[number % len(HOW)])
                if number % 10 == 9:
                    trial.complete()
            trial.complete()
            counts = Counter(how or "through before" for how in trial.stopped)
            print(f"{command}, {trial.seconds:.1f} s: {dict(counts)}, all whole", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
