"""Tables as the page shows them: ready text, and what each row can be filtered and found by."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from knowshift.report.study.source import Source
from knowshift.study.export import printed
from knowshift.study.tables.table import EXACT, FIGURES, Table

# More rows of one table than a reader scrolls through stand in its files alone.
MOST = 2000
# Columns whose values stand side by side and can be filtered like rows.
_ACROSS = {"asked_size": "size", "domain": "domain", "seed": "seed"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its anchor, its text, what it is filtered by, and the claims that rest on it."""

    id: str
    cells: list[str]
    told: dict[str, str]
    claims: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Shown:
    """A table of the page.

    Attributes:
        name: of its files.
        caption, header, rows, labels: as ``export.printed`` gives them.
        columns: what the columns after the labels can be filtered by: a filter's name, and a value a column.
        left: rows that stand in the files alone.
        notes, command: of the table.
    """

    name: str
    caption: str
    header: list[str]
    rows: list[Row]
    labels: int
    columns: tuple[str, list[str]] | None
    left: int
    notes: tuple[str, ...]
    command: str


def numbers(table: Table) -> list[int]:
    """Which printed row each row of the frame stands in."""
    if table.across is None or not {"value", "state"} <= set(table.frame.columns):
        return list(range(table.frame.height))
    places: dict[tuple[Any, ...], int] = {}
    keys = [name for name in table.frame.columns if name not in (*FIGURES, table.across, *table.beside)]
    return [places.setdefault(key, len(places)) for key in table.frame.select(keys).iter_rows()]


def anchor(name: str, number: int) -> str:
    """A row's id."""
    return f"{name}-{number}"


def group(row: Mapping[str, Any]) -> str | None:
    """The set a model was trained on, but for its size: a level or a mix of levels."""
    if row.get("level") is not None:
        return f"level {row['level']}"
    return None if row.get("mix") is None else f"mix {row['mix']}"


def told(source: Source, row: Mapping[str, Any]) -> dict[str, str]:
    """What a row of any table can be filtered by."""
    found = {
        "subject": source.subject(row.get("study"), row.get("model")) or None,
        "level": group(row),
        "size": row.get("asked_size"),
        "method": row.get("method"),
        "domain": row.get("domain"),
        "seed": row.get("seed"),
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def shown(source: Source, table: Table) -> Shown:
    """A table as the page shows it."""
    text = printed(table)
    first: dict[int, dict[str, Any]] = {}
    for number, row in zip(numbers(table), table.frame.iter_rows(named=True), strict=True):
        first.setdefault(number, row)
    across = _ACROSS.get(table.across or "")
    rows = []
    for number, cells in enumerate(text.rows[:MOST]):
        about = told(source, first[number])
        about.pop(across or "", None)
        rows.append(Row(anchor(table.name, number), cells, about))
    columns = None
    if across and table.across:
        values = table.frame[table.across].unique(maintain_order=True)
        columns = across, ["" if value is None else str(value) for value in values]
    return Shown(
        table.name,
        text.caption,
        text.header,
        rows,
        text.labels,
        columns,
        max(0, len(text.rows) - MOST),
        table.notes,
        table.command,
    )


def mark_claims(source: Source, shows: Mapping[str, Shown]) -> None:
    """Tell each row which claims rest on it."""
    if "claims" not in source.tables:
        return
    for claim in source.tables["claims"].frame.iter_rows(named=True):
        if claim["table"] not in shows:
            continue
        table = source.tables[claim["table"]]
        wanted = {name: value for name, value in json.loads(claim["rows"]).items() if name != "model"}
        subject = source.subject(claim.get("study"), claim["model"])
        found = {
            number
            for number, row in zip(numbers(table), table.frame.iter_rows(named=True), strict=True)
            if source.subject(row.get("study"), row.get("model")) == subject and _fits(row, wanted)
        }
        own = shows[claim["table"]]
        for number in sorted(found):
            if number < len(own.rows):
                own.rows[number].claims.append(claim_id(claim["name"], source, claim))


def claim_id(name: str, source: Source, claim: Mapping[str, Any]) -> str:
    """A claim of one subject, as rows name it."""
    subjects = list(source.subjects.values())
    subject = source.subject(claim.get("study"), claim["model"])
    return f"{name}-{subjects.index(subject)}" if subjects else name


def _fits(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(name not in row or _among(row[name], value) for name, value in wanted.items())


def _among(value: Any, wanted: Any) -> bool:
    several: Sequence[Any] = wanted if isinstance(wanted, list) else [wanted]
    if isinstance(value, float):
        return any(isinstance(one, int | float) and abs(one - value) < EXACT for one in several)
    return value in several


def lacking(frame: pl.DataFrame) -> tuple[int, int, int]:
    """Rows of a table, those that are missing, and those with fewer seeds than asked."""
    if "state" not in frame.columns:
        return frame.height, 0, 0
    return frame.height, frame.filter(state="missing").height, frame.filter(state="partial").height
