"""The figures of the page, from the tables alone: means with intervals over facts and seeds, and paired differences."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from methods_crossed import crossed_mean

from knowshift.report.words import Interval

# Name to the column of the facts table and what it is taken over.
MEASURES: dict[str, tuple[str, pl.Expr]] = {
    "id_accuracy": ("contains", pl.col("domain") == "id"),
    "id_strict": ("strict", pl.col("domain") == "id"),
    "ood_accuracy": ("contains", pl.col("domain") == "ood"),
    "id_kept": ("contains", (pl.col("domain") == "id") & pl.col("known")),
    "ood_kept": ("contains", (pl.col("domain") == "ood") & pl.col("known")),
    "ood_kept_strict": ("strict", (pl.col("domain") == "ood") & pl.col("known")),
    "kl": ("kl", pl.col("known")),
    "end_kl": ("end_kl", pl.col("known")),
}
DIVERGENCES = ("kl", "end_kl")
COMPARED = ("ood_kept", "ood_kept_strict", "id_kept", "id_accuracy", "ood_accuracy")

Verdict = Literal["supported", "not supported", "not resolved"]


def means(facts: pl.DataFrame, methods: Sequence[str], *, seed: int = 0) -> pl.DataFrame:
    """One row a method and measure: value, low, high, and ``spread``, the standard deviation between seeds."""
    rows: list[dict[str, Any]] = []
    for name in methods:
        for measure in MEASURES:
            table = by_seed(facts, name, measure)
            spread = float(table.mean(axis=1).std(ddof=1)) if len(table) > 1 else None
            ends = (0.0, float("inf")) if measure in DIVERGENCES else (0.0, 1.0)
            estimate = crossed_mean(table, ends=ends, seed=seed)
            rows.append({"name": name, "measure": measure, **estimate.to_json(), "spread": spread})
    return pl.DataFrame(rows, schema_overrides={"spread": pl.Float64})


def differences(facts: pl.DataFrame, methods: Sequence[str], against: Sequence[str], *, seed: int = 0) -> pl.DataFrame:
    """One row a method, another it is compared with and a measure: the method less the other, fact by fact and seed
    by seed, with its interval."""
    rows: list[dict[str, Any]] = []
    for other in against:
        for name in methods:
            if name == other:
                continue
            for measure in COMPARED:
                table = by_seed(facts, name, measure) - by_seed(facts, other, measure)
                estimate = crossed_mean(table, ends=(-1.0, 1.0), seed=seed)
                rows.append({"name": name, "against": other, "measure": measure, **estimate.to_json()})
    return pl.DataFrame(rows)


def by_seed(facts: pl.DataFrame, name: str, measure: str) -> npt.NDArray[np.float64]:
    """(seeds, facts) values of one method, in the order of seeds and of fact ids.

    Raises:
        ValueError: if the seeds were not asked the same facts.
    """
    column, inside = MEASURES[measure]
    own = facts.filter(inside, name=name).sort("seed", pl.col("id").cast(pl.String))
    parts = own.partition_by("seed", maintain_order=True)
    if any(part["id"].cast(pl.String).to_list() != parts[0]["id"].cast(pl.String).to_list() for part in parts):
        raise ValueError(f"{name}: the seeds were asked different facts")
    return np.stack([part[column].cast(pl.Float64).to_numpy() for part in parts])


def verdict(kept: Interval, accuracy: Interval, matched: bool) -> Verdict:
    """Whether a method keeps more than another at matched in-domain accuracy.

    Args:
        kept: its difference in base-known out-of-domain facts kept.
        accuracy: its difference in in-domain accuracy on the same test.
        matched: whether it reached the mark on validation.
    """
    if not matched or accuracy.sign < 0 or kept.sign < 0:
        return "not supported"
    return "supported" if kept.sign > 0 else "not resolved"


def one(table: pl.DataFrame, **where: str) -> Interval:
    """The figure of the one row that ``where`` names."""
    return Interval.of(table.filter(**where).row(0, named=True))
