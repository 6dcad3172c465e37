"""Where cells are done: in processes of this machine (``local``), or elsewhere. All share the study's folder.

An executor is told what to do and says what came of it; what is ready, what failed and what is tried again is the
scheduler's business.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from knowshift.errors import InputError, missing_extra
from knowshift.study.cell import Task

EXECUTORS = ("local", "ray")


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a cell. Whether it is done its folder says; this says why it is not.

    Attributes:
        key: the cell's.
        traceback: of what its work raised, else None.
        died: how its process ended without a word, such as ``killed by signal 9``, else None.
    """

    key: str
    traceback: str | None = None
    died: str | None = None


class Executor(Protocol):
    """What the scheduler asks for."""

    def room(self, need: int) -> bool:
        """Whether a cell that needs ``need`` bytes of memory can start now. With nothing under way, always."""
        ...

    def start(self, task: Task, need: int) -> None:
        """Start a cell, for which there was room."""
        ...

    def ended(self, timeout: float) -> list[Ended]:
        """Wait for cells to end, ``timeout`` seconds at most; none if none did."""
        ...

    def close(self) -> None:
        """End everything, at once."""
        ...


def executor(name: str, out: Path, workers: int | None, needs: list[int]) -> Executor:
    """The executor called ``name``.

    Args:
        out: the study's folder, which all its processes see.
        workers: how many cells at once; None: as many as processors and memory allow.
        needs: the memory in bytes of the cells there are, from which a number of workers follows.

    Raises:
        InputError: if there is no such executor, or its library is not installed.
    """
    if name == "local":
        from knowshift.study.executors.local import Local

        return Local(out, workers, needs)
    if name == "ray":
        try:
            from knowshift.study.executors.ray import Ray
        except ImportError as error:
            raise missing_extra("ray", "ray") from error
        return Ray(out, workers, needs)
    raise InputError(f"--executor {name}: choose from {', '.join(EXECUTORS)}")
