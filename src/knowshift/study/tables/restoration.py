"""Restoration beside its controls and rivals: every fraction on validation, what was chosen on test (paper, table 4);
whole blocks of layers and whole modules put back (table 11)."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from knowshift.study.measures import Measures
from knowshift.study.panel import BOTH, Panel
from knowshift.study.tables.table import Config, Places, Table, configs, figures, frame, means

TOLD: dict[str, Any] = {
    "split": pl.String,
    "domain": pl.String,
    "facts": pl.Int64,
    "restoration": pl.String,
    "setting": pl.String,
    "fraction": pl.Float64,
    "removed_norm_share": pl.Float64,
    "alpha": pl.Float64,
    "in_format": pl.Float64,
    "measure": pl.String,
}
# Whole parts put back say where an update sits, not how to choose weights.
PARTS = ("layers", "modules")
_NAMED = ("restoration", "setting", "fraction")
_NOTES = (
    "measure `contains`: share of facts answered, the unweighted mean over levels; `difference`: that less the tuned "
    "model's on the same facts and seeds. in_format: share of answers in the trained form.",
    "fraction 0, and no restoration: the model as it was trained.",
    "interpolate: the whole update scaled down so that the same squared norm is removed as by `relative`.",
)


def restoration(measures: Measures) -> Table:
    """The curve on validation: a row a model, domain, method and fraction."""
    rows = _rows(measures, "sweep", parts=False)
    return Table(
        "restoration",
        "Accuracy as more of an update is taken back, beside controls and rivals (validation)",
        frame(rows, TOLD),
        across="fraction",
        beside=("facts", "removed_norm_share", "alpha", "in_format"),
        notes=_NOTES,
    )


def confirmed(measures: Measures) -> Table:
    """What each sweep chose, and its matched controls, on test.

    Seeds choose their own fractions, so rows have none: they join each seed's choice. ``fraction`` is their mean.
    """
    rows = _rows(measures, "confirm", parts=False)
    return Table(
        "confirmed",
        "What was chosen on validation, and its matched controls, confirmed on test",
        frame(rows, TOLD),
        notes=(*_NOTES, "Each seed's own choice; fraction is the mean over seeds of the fractions chosen."),
    )


def parts(measures: Measures) -> Table:
    """Whole blocks of layers, and whole modules, put back one at a time."""
    return Table(
        "parts",
        "Accuracy after whole blocks of layers, or whole modules, are put back (validation)",
        frame(_rows(measures, "sweep", parts=True), TOLD),
        notes=_NOTES,
    )


def _rows(measures: Measures, kind: str, *, parts: bool) -> list[dict[str, Any]]:
    split = "test" if kind == "confirm" else "validation"
    found: list[dict[str, Any]] = []
    for model in measures.models:
        panel = measures.answers.get((model, split))
        own = configs(measures.index, kind, model=model)
        here = None if panel is None else panel.models.filter(kind=kind)
        if panel is None or here is None or here.is_empty():
            found += [{**one.labels, "split": split, **figures(one, None)} for one in own]
            continue
        # A confirmation's fraction is its seed's own; the rival too.
        named = (pl.col("restoration"),) if kind == "confirm" else tuple(map(pl.col, _NAMED))
        kinds = here.select(*named).unique(maintain_order=True)
        wanted = kinds.filter(pl.col("restoration").is_in(PARTS).fill_null(False) == parts)
        tuned = Places(panel)
        for domain in (*panel.domains, BOTH):
            for row in wanted.iter_rows(named=True):
                found += _row(panel, tuned, own, here, row, domain, split)
    return found


def _row(
    panel: Panel,
    tuned: Places,
    own: Sequence[Config],
    here: pl.DataFrame,
    row: dict[str, Any],
    domain: str,
    split: str,
) -> list[dict[str, Any]]:
    """One method and fraction, of every configuration, and less the tuned model."""
    told = {"split": split, "domain": domain, "facts": panel.count(domain), **row}
    made = _made(here, row)
    plain, less = [], []
    for one in own:
        keys = [key for key in one.done if key in made]
        at = [made[key] for key in keys] or None
        about = {**told, **_about(panel, here, at, domain, fixed=row.get("fraction") is not None)}
        plain.append((one, {**about, "measure": "contains"}, at, None))
        if row["restoration"] is not None:
            less.append((one, {**about, "measure": "difference"}, at, tuned.of(keys)))
    return means(panel, plain, "contains", domain) + means(panel, less, "contains", domain)


def _made(here: pl.DataFrame, row: dict[str, Any]) -> dict[str, int]:
    """Where each cell's model stands that some columns tell."""
    own = here.filter(*(pl.col(name).eq_missing(pl.lit(value)) for name, value in row.items()))
    return dict(own.select("key", "place").iter_rows())


def _about(
    panel: Panel, here: pl.DataFrame, places: Sequence[int] | None, domain: str, *, fixed: bool
) -> dict[str, Any]:
    if not places:
        return {}
    own = here.filter(pl.col("place").is_in(list(places)))
    return {
        "removed_norm_share": own["removed_norm_share"].mean(),
        "alpha": own["alpha"].mean(),
        "in_format": float(panel.each("in_format", places, domain).mean()),
        **({} if fixed else {"fraction": own["fraction"].mean()}),
    }
