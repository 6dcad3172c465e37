"""Where the change in weights is: concentration beside its no-training null (paper, table 3), layers and modules with
enrichment (tables 9 and 10). One number a model: intervals are over seeds alone."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from knowshift.study.measures import Measures
from knowshift.study.tables.table import EXACT, Config, Table, configs, frame, seed_means

_CONCENTRATED = ("share", "null_share", "excess", "energy_share")


def concentration(measures: Measures) -> Table:
    """Share of the summed relative change in the top fraction of the weights, and of the same weights untrained.

    ``measure``: share, null_share, excess (share less null_share) and energy_share (of the squared update).
    """
    own = _configs(measures)
    table = measures.concentration
    rows: list[tuple[Config, dict[str, Any]]] = []
    values: dict[tuple[str, float, str], float] = {}
    fractions: list[float | None] = [None]  # without any model compared, the rows still stand
    if table.height:
        table = table.filter("paper").with_columns(excess=pl.col("share") - pl.col("null_share"))
        fractions = sorted(set(table["fraction"]))
        for row in table.iter_rows(named=True):
            values |= {(row["key"], row["fraction"], name): row[name] for name in _CONCENTRATED}
    for one in own:
        rows += [(one, {"fraction": fraction, "measure": name}) for fraction in fractions for name in _CONCENTRATED]
    found = seed_means(
        rows,
        lambda one, told: _known([values.get((key, told["fraction"], told["measure"])) for key in one.done]),
    )
    return Table(
        "concentration",
        "Share of the summed relative change held by the most changed weights, beside its no-training null",
        frame(found, {"fraction": pl.Float64, "measure": pl.String}),
        across="fraction",
        notes=(
            "null_share: the same weights with independent noise of the same kind in place of training.",
            "Intervals are over seeds alone (Student's t).",
        ),
    )


def modules(measures: Measures) -> Table:
    """Of the restored weights, each module's part and its enrichment (part of the restored / part of all)."""
    return _places(measures, "module", "modules", "Restored weights by module, with enrichment")


def layers(measures: Measures) -> Table:
    """The same by transformer block."""
    return _places(measures, "layer", "layers", "Restored weights by layer, with enrichment")


def shares(table: pl.DataFrame, by: str | pl.Expr) -> pl.DataFrame:
    """Parts by model and fraction: key, fraction, place, restored_share, parameter_share, enrichment."""
    place = (pl.col(by) if isinstance(by, str) else by).alias("place")
    total = pl.col("parameters").sum().over("key", "fraction")
    return (
        table.with_columns(parameter_share=pl.col("parameters") / total)
        .group_by("key", "fraction", place, maintain_order=True)
        .agg(pl.col("restored_share", "parameter_share").sum())
        .with_columns(enrichment=pl.col("restored_share") / pl.col("parameter_share"))
    )


def _places(measures: Measures, by: str, name: str, title: str) -> Table:
    own, table = _configs(measures), measures.modules
    kinds = ("restored_share", "parameter_share", "enrichment")
    told: list[dict[str, Any]] = [{}]
    values: dict[tuple[str, float, Any, str], float] = {}
    if table.height:
        inside = table.drop_nulls("layer") if by == "layer" else table
        parts = shares(inside, by)
        order = parts.select("fraction", "place").unique(maintain_order=True)
        if by == "layer":
            order = order.sort("fraction", "place")
        told = [
            {"fraction": fraction, by: place, "measure": kind}
            for fraction, place in order.iter_rows()
            for kind in kinds
        ]
        for row in parts.iter_rows(named=True):
            values |= {(row["key"], row["fraction"], row["place"], kind): row[kind] for kind in kinds}
    rows = [(one, about) for one in own for about in told]
    found = seed_means(
        rows,
        lambda one, about: _known(
            [values.get((key, about["fraction"], about[by], about["measure"])) for key in one.done] if about else []
        ),
    )
    return Table(
        name,
        title,
        frame(found, {"fraction": pl.Float64, by: pl.Int64 if by == "layer" else pl.String, "measure": pl.String}),
        across=by,
        unit="ratio",
        notes=("Enrichment 1: as many restored weights as its size alone would give.",),
    )


def _configs(measures: Measures) -> list[Config]:
    return [one for model in measures.models for one in configs(measures.index, "diff", model=model)]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def nearest(fractions: Sequence[float], wanted: float) -> float | None:
    """The one that is ``wanted``, however it is spelled."""
    return next((fraction for fraction in fractions if abs(fraction - wanted) < EXACT), None)
