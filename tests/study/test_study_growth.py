"""What a study costs beside its cells' work: a calibration that ends, and bookkeeping that grows with the cells."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowshift.study import calibrate
from stubs import diamonds, study


class Machine:
    """A clock that work of a known rate moves; the first work on it takes longer."""

    def __init__(self, fixed: float, each: float, first: float) -> None:
        self.fixed, self.each, self.first, self.seconds = fixed, each, first, 0.0

    def monotonic(self) -> float:
        return self.seconds

    def work(self, count: int) -> None:
        self.seconds += self.first + self.fixed + count * self.each
        self.first = 0.0


@given(st.floats(0, 20), st.floats(0, 20), st.floats(0, 60))
def test_a_calibration_finds_the_rate_and_ends(fixed: float, each: float, first: float) -> None:
    """Never too low for anything longer than its pieces, exact where the pieces fit, and over soon."""
    machine = Machine(fixed, each, first)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibrate.time, "monotonic", machine.monotonic)
        rate = calibrate.line(machine.work, calibrate.FACTS)
    if first + fixed + each < calibrate.LIMIT / 3:
        assert (rate.fixed, rate.each) == pytest.approx((fixed, each), abs=1e-6)
    assert rate.fixed + 100 * rate.each >= fixed + 100 * each - 1e-6
    assert machine.seconds <= first + 2 * (fixed + each) + 2 * calibrate.LIMIT


def files_touched(out: Path, count: int) -> int:
    """How often a study of so many cells opens, renames, makes or lists a file or folder."""
    touched = 0

    def heard(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal touched
        touched += listening and event in ("open", "os.rename", "os.mkdir", "os.listdir", "os.scandir")

    listening = True
    sys.addaudithook(heard)
    study(out, diamonds(count // 5))
    listening = False
    return touched


def test_bookkeeping_grows_with_the_cells_and_no_faster(tmp_path: Path) -> None:
    few, many = (files_touched(tmp_path / str(count), count) / count for count in (50, 200))
    assert many < 1.2 * few
    assert many < 60
