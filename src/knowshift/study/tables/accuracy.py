"""Accuracy by training level, size and the level of the facts asked (paper, table 2 and figure 2); what became of
what the base knew."""

from typing import Any

import numpy as np
import polars as pl

from knowshift.study.measures import Measures
from knowshift.study.panel import Panel
from knowshift.study.tables.table import Config, Places, Table, configs, figures, frame, means

SCOPE: dict[str, Any] = {"split": pl.String, "domain": pl.String, "test_level": pl.Int64, "facts": pl.Int64}
MEASURES = ("contains", "strict", "in_format")
FORMS = ("few-shot", "plain", "trained")


def accuracy(measures: Measures, split: str = "test") -> Table:
    """Shares of facts answered: a row a model, domain, level of the facts and measure.

    ``test_level`` null is the paper's headline: the unweighted mean over levels. ``measure``: contains, strict, and
    in_format (answers in the form of an answer, right or wrong).
    """
    rows: list[dict[str, Any]] = []
    for model in measures.models:
        panel = measures.answers.get((model, split))
        own = configs(measures.index, "eval", model=model, split=split)
        if panel is None:
            rows += [{**one.labels, "split": split, "measure": "contains", **figures(one, None)} for one in own]
            continue
        places = Places(panel)
        for domain in panel.domains:
            for level in (None, *panel.levels(domain)):
                told = {"split": split, "domain": domain, "test_level": level, "facts": panel.count(domain, level)}
                for measure in MEASURES:
                    asked = [(one, {**told, "measure": measure}, places.of(one.done), None) for one in own]
                    rows += means(panel, asked, measure, domain, level)
    return Table(
        "accuracy",
        f"Accuracy by training level and size, and by the level of the facts asked ({split})",
        frame(rows, {**SCOPE, "measure": pl.String}),
        across="test_level",
        beside=("facts",),
        notes=(
            "Mean: the unweighted mean over levels, the paper's headline figure.",
            "Base rows are the model before training, asked in several forms.",
            "Intervals are over facts and seeds; with one seed over facts alone.",
        ),
    )


def by_size(table: Table) -> Table:
    """The same by size alone (figure 2): means over levels, of the facts that are answered."""
    inside = pl.col("test_level").is_null() & (pl.col("measure") == "contains")
    return Table(
        "size",
        "Accuracy by the number of facts trained on",
        table.frame.filter(inside).drop("test_level", "measure"),
        across="asked_size",
        beside=("facts", "size"),
        notes=table.notes,
    )


def transitions(measures: Measures, split: str = "test") -> Table:
    """Of the facts the base knew, the share lost; of those it did not, the share gained.

    The base is asked in the first of these forms that it was asked in: after solved examples, plainly, as trained;
    a form never learned is not taken for knowledge lacked.
    """
    told = {**SCOPE, "change": pl.String, "base_form": pl.String}
    rows: list[dict[str, Any]] = []
    for model in measures.models:
        panel = measures.answers.get((model, split))
        asked = configs(measures.index, "eval", model=model, split=split, role="base")
        bases = {one.labels["form"]: one for one in asked}
        own = configs(measures.index, "eval", model=model, split=split, role="tuned")
        form = next((form for form in FORMS if form in bases and bases[form].done), None)
        if panel is None or form is None:
            rows += [{**one.labels, "split": split, "base_form": form, **figures(one, None)} for one in own]
            continue
        places = Places(panel)
        (base,) = places.of(bases[form].done) or [0]
        for domain in panel.domains:
            for change, known in (("lost", True), ("gained", False)):
                named = {"split": split, "change": change, "base_form": form}
                rows += _changes(panel, own, places, base, domain, known, named)
    return Table(
        "transitions",
        "Facts lost of those the base knew, and gained of those it did not",
        frame(rows, told),
        across="change",
        beside=("facts",),
        notes=("Every fact counts the same; the interval is over facts and seeds.",),
    )


def _changes(
    panel: Panel, own: list[Config], places: Places, base: int, domain: str, known: bool, told: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of the facts that the base knew, or did not."""
    inside = (panel.facts["domain"] == domain).to_numpy() & (panel.values["contains"][:, base] == known)
    if not inside.any():
        return [{**one.labels, **told, "domain": domain, "facts": 0, **figures(one, None)} for one in own]
    hits = panel.values["contains"][inside]
    part = Panel(
        panel.facts.filter(pl.Series(inside)).with_columns(level=pl.lit(None, dtype=pl.Int8)),
        panel.models,
        {"changed": ~hits if known else hits},
        seed=panel.seed,
        resamples=panel.resamples,
    )
    rows = [(one, {**told, "domain": domain, "facts": int(np.sum(inside))}, places.of(one.done), None) for one in own]
    return means(part, rows, "changed", domain)
