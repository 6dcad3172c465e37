"""A real Ray cluster of two nodes on one machine: cells on both, and one node lost while they are at work."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knowshift.errors import InputError
from knowshift.study import executors
from knowshift.study.cell import Cell, Task
from knowshift.study.executors import Ended, Executor
from knowshift.study.run import status
from stubs import diamonds, results, study


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "knowshift.study.executors.ray", raising=False)
    with pytest.raises(InputError, match=r"ray is needed here .*knowshift\[ray\]"):
        executors.executor("ray", tmp_path, None, [])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'knowshift[ray]'")
    from ray.cluster_utils import Cluster

    # Nothing is sent home, and no cell killed because other programs hold the machine's memory.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}
    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
    try:
        made.second = made.add_node(num_cpus=1, **small)
        made.connect()
        yield made
    finally:
        import ray

        ray.shutdown()
        made.shutdown()


def on_ray(out: Path) -> Executor:
    return executors.executor("ray", out, None, [1])


def test_cells_on_two_nodes_leave_the_same_files_and_failures_are_told(cluster: Any, tmp_path: Path) -> None:
    from knowshift.study.executors.ray import share

    bad = Cell("stub", {"fail": "no luck today"})
    study(tmp_path / "here", diamonds(2))
    with pytest.raises(InputError, match=r"1 cell failed .*no luck today"):
        study(tmp_path / "ray", [*diamonds(2), bad], on_ray)
    assert results(tmp_path / "ray") == results(tmp_path / "here")
    assert status(tmp_path / "ray")["state"].to_list().count("done") == 10
    large, small = {"CPU": 8, "memory": 100.0}, {"CPU": 2, "memory": 50.0}
    assert share([large, small], 5, 30) == {"num_cpus": 2, "memory": 30}
    assert share([large, {**small, "GPU": 4}], 1, 300) == {"num_cpus": 8, "memory": 100, "num_gpus": 1}


def test_cells_of_a_lost_node_are_done_on_another(cluster: Any, tmp_path: Path) -> None:
    out, cells = tmp_path / "out", [Cell("stub", {"n": number, "seconds": 2.5}) for number in range(4)]
    study(tmp_path / "undisturbed", cells)

    class Losing:
        """Loses the second node once cells are at work on both."""

        def __init__(self, inner: Executor) -> None:
            self.inner, self.lost, self.told = inner, False, list[Ended]()

        def room(self, need: int) -> bool:
            return self.inner.room(need)

        def start(self, task: Task, need: int) -> None:
            self.inner.start(task, need)

        def ended(self, timeout: float) -> list[Ended]:
            begun = [cell for cell in cells if (cell.folder(out) / "tries").exists()]
            ended = [cell for cell in cells if (cell.folder(out) / "done.json").exists()]
            if not self.lost and len(begun) - len(ended) == 2:
                self.lost = True
                cluster.remove_node(cluster.second, allow_graceful=False)
            told = self.inner.ended(timeout)
            self.told += told
            return told

        def close(self) -> None:
            self.inner.close()

    losing = Losing(on_ray(out))
    table, _ = study(out, cells, lambda _: losing)
    assert losing.lost
    assert not any(one.died or one.traceback for one in losing.told)  # no fault of the cell's
    assert table["state"].to_list() == ["done"] * 4
    assert results(out) == results(tmp_path / "undisturbed")
    tries = sorted(int((cell.folder(out) / "tries").read_text()) for cell in cells)
    assert tries == [1, 1, 1, 2]
