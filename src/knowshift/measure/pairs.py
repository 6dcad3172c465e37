"""Two answer tables of the same facts, row by row."""

from collections.abc import Sequence

import polars as pl

from knowshift.errors import InputError

DESCRIPTION = ("id", "topic", "subject", "question", "answers", "domain", "level")


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
