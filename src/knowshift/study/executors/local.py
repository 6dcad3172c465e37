"""Cells in processes of this machine that stay: what a step imports is paid for once in each.

A cell starts when what it needs fits beside what is under way into the memory that was free at the beginning; with
nothing under way it starts in any case. Processors are shared out among the workers, and GPUs, one to a worker.
"""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from knowshift.memory import free_memory
from knowshift.study.cell import Task
from knowshift.study.executors import Ended
from knowshift.study.executors.worker import serve

# The rest is for what nobody reckoned with.
MEMORY_SHARE = 0.9
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: "Connection[Task, tuple[str, str | None]]"
    task: Task | None = None
    need: int = 0


class Local:
    """Worker processes on this machine.

    Args:
        out: the study's folder.
        workers: how many at most; None: one to a GPU, or without one as many of the largest cells as processors and
            memory allow.
        needs: memory in bytes of the cells there are.
    """

    def __init__(self, out: Path, workers: int | None, needs: list[int]) -> None:
        self._out = out
        self._memory = int(MEMORY_SHARE * free_memory())
        self._gpus = gpus()
        self.size = workers or default_workers(processors(), len(self._gpus), self._memory, needs)
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def room(self, need: int) -> bool:
        """Whether a worker is idle, or can be made, and memory suffices."""
        busy = [worker for worker in self._workers if worker.task]
        return not busy or (len(busy) < self.size and need + sum(worker.need for worker in busy) <= self._memory)

    def start(self, task: Task, need: int) -> None:
        """Hand a cell to an idle worker, or to a new one."""
        worker = next((worker for worker in self._workers if worker.task is None), None)
        if worker is None:
            worker = self._hired()
            self._workers.append(worker)
        worker.task, worker.need = task, need
        with suppress(OSError):  # it died while idle: `ended` sees that
            worker.pipe.send(task)

    def ended(self, timeout: float) -> list[Ended]:
        """What became of cells within ``timeout`` seconds."""
        owners: dict[Any, _Worker] = {}
        for worker in self._workers:
            owners |= {worker.pipe: worker, worker.process.sentinel: worker}
        if not owners:
            return []
        ready = {id(owners[one]): owners[one] for one in wait(list(owners), timeout)}
        return [ended for worker in ready.values() for ended in self._heard(worker)]

    def close(self) -> None:
        """Kill the workers: whatever a cell was at, the same command goes on with it."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _heard(self, worker: _Worker) -> Iterator[Ended]:
        try:
            if worker.pipe.poll():
                key, traceback = worker.pipe.recv()
                worker.task = None
                yield Ended(key, traceback)
                return
        except (EOFError, OSError):
            pass
        worker.process.join()
        self._workers.remove(worker)
        worker.pipe.close()
        if worker.task:
            code = worker.process.exitcode or 0
            died = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
            yield Ended(worker.task.key, died=died)

    def _hired(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        taken = {worker.process.name for worker in self._workers}
        number = next(number for number in range(self.size) if f"knowshift-{number}" not in taken)
        process = self._context.Process(
            target=serve, args=(theirs, str(self._out), os.getpid()), name=f"knowshift-{number}", daemon=True
        )
        with _environment(self._share(number)):
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _share(self, number: int) -> dict[str, str]:
        """What a worker is told of processors and GPUs; what the user has set stays."""
        threads = max(1, processors() // self.size)
        shares = {name: str(threads) for name in THREADS if name not in os.environ}
        if self._gpus:
            shares[VISIBLE] = self._gpus[number % len(self._gpus)]
        return shares


def default_workers(processors: int, gpus: int, memory: int, needs: list[int]) -> int:
    """How many cells at once: one to a GPU; without one, as many of the largest as fit into memory."""
    if gpus:
        return gpus
    return max(1, min(processors, memory // max([1, *needs])))


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The NVIDIA GPUs a process of ours may use, as ``CUDA_VISIBLE_DEVICES`` names them; torch is not asked."""
    if (visible := os.environ.get(VISIBLE)) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables for a process that is started within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
