"""The figures of single seeds, which the other tables join: the same tables, each made of one seed's cells alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from knowshift.study.measures import Measures
from knowshift.study.measures import read as read_measures
from knowshift.study.tables.accuracy import SCOPE, accuracy, transitions
from knowshift.study.tables.drift import drift
from knowshift.study.tables.restoration import TOLD, confirmed, restoration
from knowshift.study.tables.table import COMMAND, CONFIG, FIGURES, Table
from knowshift.study.tables.weights import concentration

NAME = "seeds"
RESAMPLES = 200  # the ends of these intervals are read to the percent
# What a page draws of each table.
_DRAWN = {
    "accuracy": pl.col("measure") == "contains",
    "transitions": pl.lit(True),
    "restoration": pl.col("measure") == "difference",
    "confirmed": pl.col("measure") == "difference",
    "drift": pl.col("test_level").is_null(),
    "concentration": pl.col("measure").is_in(["share", "null_share"]),
}
_TOLD: dict[str, Any] = {
    "table": pl.String,
    **CONFIG,
    **SCOPE,
    "change": pl.String,
    "base_form": pl.String,
    "mode": pl.String,
    **TOLD,
    "seed": pl.Int64,
}


def by_seed(measures: Measures) -> Table:
    """Rows of the other tables for each seed alone; ``table`` says of which. Intervals are over facts alone."""
    seeds = sorted(set(measures.index.filter(role="tuned")["seed"].drop_nulls()))
    parts = [_of(replace(measures, index=measures.index.filter(_seed(seed))), seed) for seed in seeds]
    frame = pl.concat(parts) if parts else pl.DataFrame(schema=_schema())
    return Table(
        NAME,
        "The same figures for each seed alone",
        frame,
        across="seed",
        beside=("facts", "size", "removed_norm_share", "alpha", "in_format", "base_form"),
        notes=("table: the table whose rows join these.", "Intervals are over facts alone."),
        command=COMMAND,
    )


def of_cells(out: Path, seed: int) -> Table:
    """The same, of a study's folder.

    Args:
        out: the folder.
        seed: of the intervals.
    """
    return by_seed(read_measures(out, seed=seed, resamples=RESAMPLES))


def _seed(seed: int) -> pl.Expr:
    return pl.col("seed").is_null() | (pl.col("seed") == seed)


def _of(measures: Measures, seed: int) -> pl.DataFrame:
    made = [
        accuracy(measures),
        transitions(measures),
        restoration(measures),
        confirmed(measures),
        drift(measures),
        concentration(measures),
    ]
    schema = _schema()
    parts = []
    for table in made:
        rows = table.frame.filter(_DRAWN[table.name], pl.col("value").is_not_null(), role="tuned")
        told = rows.with_columns(table=pl.lit(table.name), seed=pl.lit(seed, dtype=pl.Int64))
        if table.name == "confirmed":  # each seed's own choice: it tells no row
            told = told.drop("fraction")
        lacking = [pl.lit(None, dtype=kind).alias(name) for name, kind in schema.items() if name not in told.columns]
        parts.append(told.with_columns(lacking).select(*schema))
    return pl.concat(parts)


def _schema() -> dict[str, Any]:
    return {**_TOLD, **FIGURES}
