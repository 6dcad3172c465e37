"""Commands stopped at chosen moments of their run, start-up to the last rename, and what may lie there after.

Used by the tests on a few moments and by ``benchmarks/weights_killed.py`` on many.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from knowshift.files import digest_file

FRACTIONS = ("0.05", "0.2", "0.6")
COMMANDS = ("diff", "restore", "restore --patch", "merge")


def line(command: str, base: Path, tuned: Path, out: Path) -> list[str]:
    """The command line of one of ``COMMANDS``."""
    name, *flags = command.split()
    pair = [str(base), str(tuned), "--out", str(out)]
    if name == "restore":
        return [name, *pair, *flags, *(part for fraction in FRACTIONS for part in ("--fraction", fraction))]
    return [name, "fapm", *pair, "--keep", "0.4"] if name == "merge" else [name, *pair]


@dataclass
class Trial:
    """One command and what it writes when nobody disturbs it.

    Attributes:
        place: an empty folder of its own.
        seconds: how long the undisturbed run took.
        stopped: by which signal each disturbed run was ended; None where it was through before.
    """

    command: str
    base: Path
    tuned: Path
    place: Path
    seconds: float = 0.0
    stopped: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.place / "tmp").mkdir(parents=True)
        began = time.perf_counter()
        with self._start() as process:
            assert process.wait() == 0
        self.seconds = time.perf_counter() - began
        self.expected = self._written()
        (self.place / "out").rename(self.place / ".reference")

    def stop(self, moment: float, how: signal.Signals) -> None:
        """Run the command, stop it at ``moment`` of its run (0 to 1), and look at what it left.

        Nothing may have its final name that is not whole. A process that was asked to end leaves nothing else either,
        beside what runs that were killed before it left; one that was killed may leave files under hidden names, but
        none where temporary files go.
        """
        before = set(self._hidden())
        code = self._run_and_stop(moment, how) or self._run_and_stop(moment, how)
        self.stopped.append(how.name if code else None)
        written = self._written()
        where = f"{self.command}, {how.name} at {moment:.3f} of {self.seconds:.2f} s"
        wrong = {name for name, digest in written.items() if self.expected.get(name) != digest}
        assert not wrong, f"{where}: not whole: {wrong}"
        for name in self.expected:
            folder = Path(name).parent
            if any(Path(other).parent == folder and other.endswith(".safetensors") for other in self.expected):
                assert not (self.place / folder).exists() or name in written, f"{where}: {name} is missing"
        assert not list((self.place / "tmp").iterdir()), f"{where}: temporary files"
        if how != signal.SIGKILL:
            left = set(self._hidden()) - before
            assert not left, f"{where}: left behind: {left}"

    def _run_and_stop(self, moment: float, how: signal.Signals) -> int:
        """The exit status; if the run was through before, its time is what ``moment`` is counted in from then on."""
        began = time.perf_counter()
        with self._start() as process:
            try:
                process.wait(moment * self.seconds)
                self.seconds = time.perf_counter() - began
            except subprocess.TimeoutExpired:
                process.send_signal(how)
            return process.wait(120)

    def complete(self) -> None:
        """Run the same command to its end: it writes the same bytes, and what was left behind is gone."""
        with self._start() as process:
            assert process.wait() == 0
        assert self._written() == self.expected
        assert not list(self._hidden())

    def _start(self) -> "subprocess.Popen[bytes]":
        arguments = [sys.executable, "-m", "knowshift", *line(self.command, self.base, self.tuned, self.place / "out")]
        environment = {**os.environ, "TMPDIR": str(self.place / "tmp")}
        return subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)

    def _written(self) -> dict[str, str]:
        """Files under their final names by their digest; not the record of the run, which holds times."""
        files = [path for path in self._files() if not path.name.startswith(".") and path.name != "run.json"]
        return {str(path.relative_to(self.place)): digest_file(path) for path in files}

    def _files(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self.place / "out"):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(folder) / name for name in names)

    def _hidden(self) -> Iterator[Path]:
        yield from (path for path in self.place.rglob(".*") if ".reference" not in path.parts)
