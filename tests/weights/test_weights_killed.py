"""Commands killed, or asked to end, at moments spread over the whole of their run; see ``killing``."""

import signal
from pathlib import Path

import pytest
from killing import COMMANDS, Trial

import tiny

KILLED = (0.3, 0.6, 0.9)
ASKED = ((0.7, signal.SIGTERM), (0.85, signal.SIGINT))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pair of twenty million weights."""
    folder = tmp_path_factory.mktemp("large")
    base = tiny.checkpoint(folder / "base", hidden=1024, layers=2)
    return base, tiny.nudge(base, folder / "tuned", scale=0.002)


@pytest.mark.parametrize("command", COMMANDS)
def test_stopped_at_any_moment_nothing_is_half_written(large, tmp_path: Path, command: str) -> None:
    trial = Trial(command, *large, tmp_path)
    for moment, how in [*((moment, signal.SIGKILL) for moment in KILLED), *ASKED]:
        trial.stop(moment, how)
    assert sum(how is not None for how in trial.stopped) >= 3, trial.stopped
    trial.complete()
