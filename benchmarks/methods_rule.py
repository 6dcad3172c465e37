"""The rule of choice, on validation figures alone; takes tables and numbers, no files.

The mark is the best in-domain accuracy that the target method (plain fine-tuning) reaches over its sweep, less one
standard error of that accuracy. Of a method's points that reach the mark, the one that keeps most of what the base
knew out of domain is chosen; where none does, the one with the highest in-domain accuracy, marked as not matched.
"""

from math import sqrt
from typing import Any

import polars as pl


def mark(points: pl.DataFrame, target: str) -> dict[str, float]:
    """The accuracy to be reached: ``best`` of the target method, its ``standard_error``, and ``mark``."""
    own = points.filter(name=target).sort("id_accuracy", descending=True).row(0, named=True)
    best, facts = own["id_accuracy"], own["id_facts"]
    error = sqrt(best * (1 - best) / facts)
    return {"best": best, "standard_error": error, "mark": best - error}


def choose(points: pl.DataFrame, least: float) -> pl.DataFrame:
    """The chosen point of each method: the columns of ``points`` and ``matched``.

    Equal points: the higher in-domain accuracy (or out-of-domain facts kept), then the lower learning rate.

    Args:
        points: one row a point of the sweep: name, setting, learning_rate, id_accuracy, ood_kept and others.
        least: the mark.
    """
    rows: list[dict[str, Any]] = []
    for _, own in points.group_by("name", maintain_order=True):
        reached = own.filter(pl.col("id_accuracy") >= least)
        order = ["ood_kept", "id_accuracy"] if reached.height else ["id_accuracy", "ood_kept"]
        ranked = (reached if reached.height else own).sort(
            *order, "learning_rate", descending=[True, True, False], maintain_order=True
        )
        rows.append(ranked.row(0, named=True) | {"matched": reached.height > 0})
    return pl.DataFrame(rows, infer_schema_length=None)
