"""Cells on a Ray cluster: the one that runs, named by ``RAY_ADDRESS`` or found on this machine, else one started here.

Every node needs knowshift installed and sees the study's folder, and models that the plan names as folders, under the
same path. Ray keeps a cell waiting until a node has the processors, memory and GPU it asks for. A cell whose node was
lost is started again on another; one whose process died is the scheduler's to judge.
"""

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import LocalRayletDiedError, NodeDiedError, OutOfMemoryError, RayError, WorkerCrashedError

from knowshift.study.cell import Task
from knowshift.study.executors import Ended
from knowshift.study.executors.local import THREADS, default_workers
from knowshift.study.executors.worker import attempt
from knowshift.study.index import GRID

# How often the same cell may lose its node before that is taken for the cell's own doing.
LOST = 3


@dataclass(slots=True)
class _Sent:
    task: Task
    need: int
    lost: int = 0


class Ray:
    """Tasks of a Ray cluster.

    Args:
        out: the study's folder, which all nodes share.
        workers: how many cells at once; None: one to a GPU, or without one as many of the largest as the nodes hold.
        needs: memory in bytes of the cells there are.
    """

    def __init__(self, out: Path, workers: int | None, needs: list[int]) -> None:
        self._out = out.resolve()
        self._workers, self._needs = workers, needs
        self._sent: dict[Any, _Sent] = {}
        self._ours = not ray.is_initialized()
        if self._ours:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        self._remote = ray.remote(_attempt)

    def room(self, need: int) -> bool:
        """Whether a cell more is worth handing over: memory and processors are Ray's to share out."""
        return not self._sent or len(self._sent) < (self._workers or self._places())

    def start(self, task: Task, need: int) -> None:
        """Hand a cell to Ray."""
        self._send(_Sent(task, need))

    def ended(self, timeout: float) -> list[Ended]:
        """What became of cells within ``timeout`` seconds."""
        if not self._sent:
            return []
        ready, _ = ray.wait(list(self._sent), num_returns=1, timeout=timeout)
        return [ended for one in ready if (ended := self._heard(one, self._sent.pop(one)))]

    def close(self) -> None:
        """End what is under way, and the cluster if it was started here."""
        for one in self._sent:
            with suppress(RayError, ValueError):
                ray.cancel(one, force=True)
        self._sent.clear()
        if self._ours:
            ray.shutdown()

    def _heard(self, one: Any, sent: _Sent) -> Ended | None:
        """What became of a cell; None if it was sent again."""
        try:
            return Ended(sent.task.key, ray.get(one))
        except (NodeDiedError, LocalRayletDiedError):
            sent.lost += 1
            if sent.lost == LOST:
                return Ended(sent.task.key, died=f"on a node that was lost, {LOST} times")
            self._send(sent)
            return None
        except OutOfMemoryError:
            return Ended(sent.task.key, died="killed by Ray for want of memory")
        except WorkerCrashedError:
            return Ended(sent.task.key, died="killed")
        except RayError as error:
            return Ended(sent.task.key, traceback=f"Ray: {str(error).strip().splitlines()[0]}")

    def _send(self, sent: _Sent) -> None:
        asked = share([node["Resources"] for node in _alive()], self._workers or self._places(), sent.need)
        task = self._remote.options(**asked, max_retries=0, name=f"{sent.task.kind} {sent.task.key}")
        self._sent[task.remote(sent.task, str(self._out), str(Path.cwd()), int(asked["num_cpus"]))] = sent

    def _places(self) -> int:
        """How many cells the nodes hold at once."""
        return sum(
            default_workers(
                int(node["Resources"].get("CPU", 0)),
                int(node["Resources"].get("GPU", 0)),
                int(node["Resources"].get("memory", 0)),
                self._needs,
            )
            for node in _alive()
        )


def share(nodes: list[dict[str, float]], cells: int, need: int) -> dict[str, float]:
    """What a cell asks of Ray: a share of the processors, its memory and a GPU if there are any; what one node has.

    Args:
        nodes: what each has: CPU, memory in bytes, GPU.
        cells: how many are done at once.
        need: the cell's memory in bytes. One that needs more than any node has gets a whole one.
    """
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU", "memory")}
    processors = sum(node.get("CPU", 0) for node in nodes) // max(cells, 1)
    asked: dict[str, float] = {
        "num_cpus": int(max(1, min(processors, most["CPU"]))),
        "memory": int(min(need, most["memory"])),
    }
    return asked | ({"num_gpus": 1} if most["GPU"] else {})


def _alive() -> list[dict[str, Any]]:
    """The nodes that can do anything."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


def _attempt(task: Task, out: str, folder: str, threads: int) -> str | None:
    """Do one cell in a process of Ray; as ``worker.attempt``."""
    for name in THREADS:
        os.environ.setdefault(name, str(threads))
    if not (Path(out) / GRID).is_file():
        return f"{out}: not seen on node {platform.node()}: all nodes must share the study's folder"
    with suppress(OSError):  # where relative paths of the plan lead from
        os.chdir(folder)
    return attempt(task, Path(out))
