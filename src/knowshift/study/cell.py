"""A cell: one step of a study, named by everything that decides its result.

Two cells with the same name have the same result, whichever plan, folder or machine they are part of, so none is run
twice. Models and facts enter a name by their digests; where they lie does not. Knows names and folders; not what a
step does, nor whether it was done.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from knowshift.files import digest_of

# Raised when a step gives other results from the same options than before.
FORMAT = 1
CELLS = "cells"
SHORT = 12  # characters of a key in a folder's name


@dataclass(frozen=True)
class Cell:
    """One step.

    Attributes:
        kind: what is done, a key of ``work.KINDS``.
        options: everything that decides the result beside the inputs, as JSON takes it.
        inputs: the cells whose files it reads, of each kind one at most.
        places: where that which ``options`` name by digest lies, such as the model's folder; no part of the name.
        labels: what tables sort it by: the columns of ``index.LABELS``; no part of the name.
    """

    kind: str
    options: Mapping[str, Any]
    inputs: tuple["Cell", ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = [cell.kind for cell in self.inputs]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"a cell of kind {self.kind} has two inputs of one kind: {kinds}")

    @cached_property
    def key(self) -> str:
        """The name: a digest of kind, options and the names of the inputs, in any order."""
        inputs = sorted(cell.key for cell in self.inputs)
        return digest_of({"format": FORMAT, "kind": self.kind, "options": dict(self.options), "inputs": inputs})

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.key == other.key

    def folder(self, out: Path) -> Path:
        """Where its files are in the study's folder ``out``."""
        return folder(out, self.kind, self.key)

    def as_task(self) -> "Task":
        """The cell as a worker needs it."""
        return Task(
            self.kind,
            self.key,
            dict(self.options),
            {cell.kind: cell.key for cell in self.inputs},
            dict(self.places),
            dict(self.labels),
        )


@dataclass(frozen=True, slots=True)
class Task:
    """A cell in plain values, to be sent to another process or written to a file.

    Attributes:
        inputs: the key of each input by its kind.
    """

    kind: str
    key: str
    options: dict[str, Any]
    inputs: dict[str, str]
    places: dict[str, str]
    labels: dict[str, Any]

    def folder(self, out: Path) -> Path:
        """Where its files are in the study's folder ``out``."""
        return folder(out, self.kind, self.key)

    def input(self, out: Path, kind: str) -> Path:
        """The folder of the input of one kind."""
        return folder(out, kind, self.inputs[kind])

    def as_json(self) -> dict[str, Any]:
        """Plain values by name, as ``Task(**values)`` takes them."""
        return {name: getattr(self, name) for name in Task.__slots__}


def folder(out: Path, kind: str, key: str) -> Path:
    """Where the files of a cell are in the study's folder ``out``."""
    return out / CELLS / kind / key[:SHORT]


def ordered(cells: Iterable[Cell]) -> list[Cell]:
    """The cells with all that they need, each once, every input before what reads it.

    Of equal cells the first stands for all.
    """
    found: dict[Cell, None] = {}

    def visit(cell: Cell) -> None:
        if cell not in found:
            for needed in cell.inputs:
                visit(needed)
            found[cell] = None

    for cell in cells:
        visit(cell)
    return list(found)
