"""How a study stands, in words: counts by kind, then what failed and what there cannot be, with the reason."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from knowshift.study.index import LABELS, STATES
from knowshift.study.work import KINDS


def lines(table: pl.DataFrame) -> Iterator[str]:
    """The lines of ``knowshift study status`` for an index."""
    kinds = [kind for kind in KINDS if kind in table["kind"].unique().to_list()]
    shown = [state for state in STATES if (table["state"] == state).any()]
    width = max([len("all"), *(len(kind) for kind in kinds)])
    yield " ".join([" " * width, *(f"{state:>8}" for state in shown)])
    for kind in kinds:
        own = table.filter(pl.col("kind") == kind)["state"]
        yield " ".join([f"{kind:{width}}", *(f"{(own == state).sum():8}" for state in shown)])
    yield " ".join([f"{'all':{width}}", *(f"{(table['state'] == state).sum():8}" for state in shown)])
    for state in ("running", "failed", "missing"):
        for row in table.filter(pl.col("state") == state).iter_rows(named=True):
            yield told(row)


def told(row: dict[str, Any]) -> str:
    """One cell in a line: state, kind, labels, and the error's last line with where the whole of it is."""
    named = " ".join(f"{name}={row[name]}" for name in LABELS if row[name] is not None)
    line = f"{row['state']}: {row['kind']} {named}"
    if row["error"]:
        line += f": {row['error']}"
    return line + (f" ({row['folder']}/error.txt)" if row["state"] == "failed" else "")
