"""Whatever is killed, and whenever: the same command ends with the same files."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from knowshift.errors import InputError
from knowshift.study.cell import Cell
from knowshift.study.run import status
from stubs import diamonds, local, results, study

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from stubs import diamonds, local, study
if __name__ == "__main__":
    study(Path(sys.argv[1]), diamonds(8, seconds=0.1), local(2))
"""
KILLS = 20


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "go.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))
    return path


def workers_of(parent: int) -> list[int]:
    """The processes that a process started and that do cells."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and f"\nPPid:\t{parent}\n" in (entry / "status").read_text():
                line = (entry / "cmdline").read_text()
                if "spawn_main" in line:
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def begun(script: Path, out: Path) -> subprocess.Popen[bytes]:
    """A study under way: its workers are there, or it is over."""
    process = subprocess.Popen([sys.executable, str(script), str(out)], stderr=subprocess.DEVNULL)
    while process.poll() is None and not workers_of(process.pid):
        time.sleep(0.02)
    return process


def killed_at_random(script: Path, out: Path, dice: random.Random, kills: int) -> int:
    """Run a study to its end, while schedulers and workers are killed; how many were."""
    killed = 0
    process = begun(script, out)
    while process.poll() is None or process.returncode:
        if process.returncode:  # killed, or a cell's process was killed twice: the same command tries again
            process = begun(script, out)
        time.sleep(dice.uniform(0.0, 0.6))
        victims = [process.pid] if dice.random() < 0.5 else workers_of(process.pid)
        if killed < kills and victims and process.poll() is None:
            os.kill(dice.choice(victims), signal.SIGKILL)
            killed += 1
            if victims == [process.pid]:
                process.wait()
    return killed


def test_killed_at_random_the_same_command_ends_with_the_same_files(script: Path, tmp_path: Path) -> None:
    """About half of the kills hit the scheduler, the others a worker; in as many studies as it takes."""
    undisturbed, dice, left = tmp_path / "undisturbed", random.Random(0), KILLS
    study(undisturbed, diamonds(8, seconds=0.1))
    for number in range(KILLS):
        out = tmp_path / str(number)
        left -= killed_at_random(script, out, dice, left)
        assert results(out) == results(undisturbed)
        assert status(out)["state"].unique().to_list() == ["done"]
        assert status(out).drop("seconds", "peak_bytes").equals(status(undisturbed).drop("seconds", "peak_bytes"))
        assert not list(out.glob("cells/*/*/model"))
        if not left:
            return
    raise AssertionError(f"{left} of {KILLS} kills hit nothing")


def test_of_two_schedulers_one_does_the_study_and_one_is_refused(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(script), str(tmp_path / "out")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=240)[1] for process in both]
    codes = [process.returncode for process in both]
    if codes == [0, 0]:
        pytest.skip("one was over before the other began: this machine is too busy to tell")
    assert sorted(codes) == [0, 1]
    assert "at work in this folder already" in told[codes.index(1)].splitlines()[-1]
    study(tmp_path / "undisturbed", diamonds(8, seconds=0.1))
    assert results(tmp_path / "out") == results(tmp_path / "undisturbed")


def test_workers_do_not_outlive_a_killed_scheduler(script: Path, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "out")])
    deadline = time.monotonic() + 60
    while not (workers := workers_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert workers
    process.kill()
    process.wait()
    while any(_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(worker) for worker in workers)


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_dies_is_tried_once_more_and_then_its_cell_fails(tmp_path: Path) -> None:
    once, twice = Cell("stub", {"die": 1}), Cell("stub", {"die": 2})
    others = [Cell("stub", {"n": number}) for number in range(3)]
    with pytest.raises(InputError, match=r"1 cell failed .*killed by signal 9, twice"):
        study(tmp_path, [once, twice, *others], local(2))
    table = status(tmp_path)
    states = dict(zip(table["key"], table["state"], strict=True))
    assert states.pop(twice.key) == "failed"
    assert set(states.values()) == {"done"}
    assert (once.folder(tmp_path) / "tries").read_text() == "2"


def test_what_does_not_fit_beside_others_waits_and_what_fits_nowhere_runs_alone(tmp_path: Path) -> None:
    from knowshift.study.executors.local import Local, default_workers

    executor = Local(tmp_path, 3, [])
    try:
        whole = executor._memory
        assert executor.room(10 * whole)  # nothing under way
        executor.start(Cell("stub", {"seconds": 30}).as_task(), whole // 2)
        assert executor.room(whole // 3)
        assert not executor.room(whole)
    finally:
        executor.close()
    assert default_workers(8, 0, 100, [30, 20]) == 3
    assert default_workers(2, 0, 100, [30]) == 2
    assert default_workers(8, 0, 100, [300]) == 1
    assert default_workers(8, 4, 100, [300]) == 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("room", range(0, 200_000, 25_000))
def test_a_full_disk_is_told_in_one_line_and_with_room_the_same_command_ends_well(
    small_disk: Path, tmp_path: Path, room: int
) -> None:
    """Whatever is written when the disk fills up: a cell's file, its mark, the list of cells."""
    cells = diamonds(4)
    study(tmp_path / "undisturbed", cells)
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as handle:
        while True:
            handle.write(bytes(4096))
    with filler.open("r+b") as handle:
        handle.truncate(filler.stat().st_size - room)
    with pytest.raises(InputError, match=r"No space left on device|the disk filled up") as caught:
        study(small_disk / "out", cells)
    assert "\n" not in str(caught.value)
    filler.unlink()
    table, _ = study(small_disk / "out", cells)
    assert table["state"].unique().to_list() == ["done"]
    assert results(small_disk / "out") == results(tmp_path / "undisturbed")


def test_a_full_disk_fails_cells_in_one_line_and_the_next_run_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a cell writes finds the disk full, as the file system says it; then there is room again."""
    import errno

    from knowshift.study import stub

    cells = diamonds(2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "stub.json")

    with monkeypatch.context() as patched:
        patched.setattr(stub, "write_json", full)
        with pytest.raises(InputError, match=r"2 cells failed .*No space left on device"):
            study(tmp_path, cells)
    table = status(tmp_path)
    assert table["state"].to_list().count("failed") == 2
    assert table.filter(pl.col("state") == "done").is_empty()
    table, _ = study(tmp_path, cells)
    assert table["state"].unique().to_list() == ["done"]
