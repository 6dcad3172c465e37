"""Two answer tables of the same facts, row by row; and answer tables as files."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from knowshift.errors import InputError
from knowshift.files import read_parquet

DESCRIPTION = ("id", "topic", "subject", "question", "answers", "domain", "level")


NEEDED = ("id", "topic", "domain", "level", "text", "contains", "strict", "in_format")


def read_answers(run: Path) -> pl.DataFrame:
    """The answers of an evaluation.

    Args:
        run: its folder, or the table itself.

    Raises:
        InputError: naming what is missing or cannot be read.
    """
    file = run / "answers.parquet" if run.is_dir() else run
    if not file.exists():
        raise InputError(f"{file}: no such file; the folder of `knowshift eval` is expected")
    if file.suffix != ".parquet":
        raise InputError(f"{file}: no table of answers; the folder of `knowshift eval` is expected")
    table = read_parquet(file)
    if missing := [name for name in NEEDED if name not in table.columns]:
        raise InputError(f"{file}: no table of answers, it lacks the columns {', '.join(missing)}")
    if table.is_empty():
        raise InputError(f"{file}: there are no answers")
    return table


def pair(before: pl.DataFrame, after: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """One row a fact, in the order of ``before``: what describes it, and ``columns`` of both sides.

    Args:
        before: answers of the first model.
        after: answers of the second.
        columns: what to take from both, as ``<column>_before`` and ``<column>_after``.

    Returns:
        The descriptive columns of ``before``, with the level of ``after`` where ``before`` has none, and the
        columns asked for.

    Raises:
        InputError: naming a fact that stands in one table alone, or twice.
    """
    for name, table in (("first", before), ("second", after)):
        if table["id"].n_unique() != table.height:
            twice = table["id"].filter(table["id"].is_duplicated())[0]
            raise InputError(f"the {name} table of answers holds the fact {twice!r} more than once")
    for name, table, other in (("first", before, after), ("second", after, before)):
        alone = table.join(other, on="id", how="anti")["id"]
        if len(alone):
            raise InputError(
                f"the two tables of answers hold different facts: {len(alone)} stand only in the {name}, "
                f"such as {alone[0]!r}"
            )
    described = [name for name in DESCRIPTION if name in before.columns and name != "level"]
    left = before.select(*described, "level", *(pl.col(name).alias(f"{name}_before") for name in columns))
    right = after.select(
        "id", pl.col("level").alias("level_after"), *(pl.col(name).alias(f"{name}_after") for name in columns)
    )
    return (
        left.join(right, on="id", how="inner", maintain_order="left")
        .with_columns(level=pl.coalesce("level", "level_after").cast(pl.Int8))
        .drop("level_after")
    )
