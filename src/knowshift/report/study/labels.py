"""A table's rows as charts take them: what they are called, filtered by and sorted by, and the row they stand in."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from knowshift.report.study.rows import anchor, group, numbers, told
from knowshift.report.study.seeds import NAME as SEEDS
from knowshift.report.study.source import Source
from knowshift.report.theme import DOMAINS
from knowshift.study.tables.table import Table

DIGITS = 5
# A filter is a column of every chart's data; a row without a value passes it.
FILTERS = ("subject", "level", "size", "method", "domain", "seed")
_DOMAINS = {**DOMAINS, "both": "Both domains"}


def labelled(source: Source, name: str, *, seeds: bool = True) -> pl.DataFrame:
    """The rows of a table, and of single seeds, with: row (anchor), the columns of ``FILTERS`` as text, group, set,
    trained, place, scope (domain in words), and figures rounded.

    Args:
        name: of the table.
        seeds: also the rows of single seeds, if there are.
    """
    parts = [_named(source, source.tables[name])]
    if seeds and SEEDS in source.tables:
        table = source.tables[SEEDS]
        parts.append(_named(source, table).filter(pl.col("table") == name))
    frame = pl.concat(parts, how="diagonal_relaxed")
    floats = [column for column, kind in frame.schema.items() if kind == pl.Float64]
    return frame.with_columns(pl.col(floats).round(DIGITS))


def _named(source: Source, table: Table) -> pl.DataFrame:
    methods = set(table.frame["method"].drop_nulls()) if "method" in table.frame.columns else set()
    rows = []
    for number, row in zip(numbers(table), table.frame.iter_rows(named=True), strict=True):
        about = told(source, row)
        rows.append(
            {
                "row": anchor(table.name, number),
                **{name: about.get(name) for name in FILTERS},
                "group": group(row) or untrained(row),
                "set": set_name(row, several=len(methods) > 1),
                "trained": row.get("size"),
                "place": sort_key(row),
                "scope": _DOMAINS.get(row.get("domain") or "", ""),
            }
        )
    schema: dict[str, Any] = {
        "row": pl.String,
        **dict.fromkeys(FILTERS, pl.String),
        "group": pl.String,
        "set": pl.String,
        "trained": pl.Int64,
        "place": pl.Int64,
        "scope": pl.String,
    }
    made = pl.DataFrame(rows, schema=schema)
    drop = [name for name in ("study", "model", "mix", "asked_size", *made.columns) if name in table.frame.columns]
    return pl.concat([made, table.frame.drop(drop)], how="horizontal")


def untrained(row: Mapping[str, Any]) -> str | None:
    """What a model that was not trained is called."""
    return None if row.get("role") in (None, "tuned") else f"{row['role']}, {row.get('form')}"


def set_name(row: Mapping[str, Any], *, several: bool) -> str:
    """A trained model but for its seed, in a few words: set, size and, of ``several``, method."""
    named = untrained(row)
    if named:
        return named
    size, asked = row.get("size"), row.get("asked_size")
    words = [group(row) or "no set chosen"]
    if asked is not None or size is not None:
        words.append(str(asked or size) if size is None or str(size) == asked else f"{asked} ({size})")
    if several and row.get("method"):
        words.append(str(row["method"]))
    return ", ".join(words)


def sort_key(row: Mapping[str, Any]) -> int:
    """Untrained models first, then by level, mixes last, and by size."""
    if untrained(row):
        return -1
    level = 9 if row.get("level") is None else int(row["level"])
    size, asked = row.get("size"), str(row.get("asked_size") or "")
    return level * 10**9 + int(size if size is not None else asked if asked.isdecimal() else 10**8)


def in_order(frame: pl.DataFrame, column: str, by: str = "place") -> list[str]:
    """A column's values, each once, by where they belong."""
    return frame.drop_nulls(column).sort(by, maintain_order=True)[column].unique(maintain_order=True).to_list()
