"""Whatever is killed, and whenever: the same command ends with the same files."""

import os
import random
import signal
import subprocess
import sys
import time
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
    study(Path(sys.argv[1]), diamonds(6, seconds=0.05), local(2))
"""
KILLS = 8


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


def test_killed_at_random_the_same_command_ends_with_the_same_files(script: Path, tmp_path: Path) -> None:
    """Half of the kills hit the scheduler, half of them a worker."""
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "killed"
    study(undisturbed, diamonds(6, seconds=0.05))
    dice = random.Random(0)
    for number in range(KILLS):
        process = subprocess.Popen([sys.executable, str(script), str(out)], stderr=subprocess.PIPE)
        deadline = time.monotonic() + dice.uniform(0.5, 4.0)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        workers = workers_of(process.pid)
        if number % 2 and workers:
            os.kill(dice.choice(workers), signal.SIGKILL)
            process.wait(timeout=240)
        elif process.poll() is None:
            process.kill()
            process.wait()
    finished = subprocess.run([sys.executable, str(script), str(out)], capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    assert results(out) == results(undisturbed)
    assert status(out)["state"].unique().to_list() == ["done"]
    assert not list(out.glob("cells/*/*/model"))


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
