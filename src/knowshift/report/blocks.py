"""What a section of the page is made of. The template has one macro for each kind of block."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of ready text. ``numeric`` names the columns set flush right."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart of a figure. ``name`` is its file's name, ``heading`` stands over it when there are several."""

    name: str
    chart: Any
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One or two charts under one title, with a takeaway computed from the data and the numbers behind them."""

    kind: ClassVar[str] = "figure"
    title: str
    takeaway: str
    panels: tuple[Panel, ...]
    sources: tuple[str, ...]
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Examples:
    """A few facts by name for each level: (level, in words, [(question, answer, score)])."""

    kind: ClassVar[str] = "examples"
    levels: list[tuple[int, str, list[tuple[str, str, str]]]]


@dataclass(frozen=True, slots=True)
class Change:
    """One fact lost or gained by one model."""

    model: str
    change: str
    topic: str
    level: str
    question: str
    expected: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Changes:
    """The searchable table of facts lost and gained."""

    kind: ClassVar[str] = "changes"
    models: list[str]
    rows: list[Change]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What three models said to one fact or prompt, and what became of it."""

    change: str
    asked: str
    expected: str
    base: str
    tuned: str
    repaired: str


@dataclass(frozen=True, slots=True)
class Answers:
    """The searchable table of answers that a repair changed, or did not bring back."""

    kind: ClassVar[str] = "answers"
    changes: list[str]
    rows: list[Answer]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A text as it stands, such as a command or a model card."""

    kind: ClassVar[str] = "text"
    caption: str
    text: str


Block = Table | Figure | Examples | Changes | Answers | Text


@dataclass(frozen=True, slots=True)
class Section:
    """A numbered part of the page.

    Attributes:
        id: its anchor.
        title: its heading.
        lead: paragraphs before the blocks.
        blocks: what it shows.
        commands: how to make it again.
        sources: files it was computed from, relative to the run folder.
    """

    id: str
    title: str
    lead: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
