"""Stages of a chain that can be killed: a finished stage is marked by a file, and passed over next time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from knowshift.files import digest_of, write_json
from knowshift.memory import return_freed_memory
from knowshift.progress import console


class Stages:
    """Runs the stages of one run folder in order.

    Args:
        folder: where the marks are kept.
        inputs: everything that decides the results: options, digests of model and facts. A mark made under
            other inputs does not count, so a changed option runs its chain again.
    """

    def __init__(self, folder: Path, inputs: dict[str, Any]) -> None:
        self._folder = folder
        self._key = digest_of(inputs)
        self._begun = 0

    def run(self, name: str, title: str, work: Callable[[], object]) -> None:
        """Do ``work`` unless it was done under the same inputs."""
        self._begun += 1
        mark = self._folder / f"{name}.json"
        if self._finished(mark):
            console.print(f"[dim]{self._begun:2}. {title}: done before[/]", highlight=False)
            return
        console.print(f"[bold]{self._begun:2}. {title}[/]", highlight=False)
        work()
        return_freed_memory()
        write_json(mark, {"stage": name, "inputs": self._key})

    def _finished(self, mark: Path) -> bool:
        try:
            return bool(json.loads(mark.read_text("utf-8"))["inputs"] == self._key)
        except (OSError, ValueError, KeyError, TypeError):
            return False
