"""How far next-token distributions moved, by training level and size (paper, figure 5), and accuracy beside it."""

from typing import Any

import polars as pl

from knowshift.study.measures import KL, Measures
from knowshift.study.tables.table import Places, Table, configs, figures, frame, means

_TOLD: dict[str, Any] = {
    "mode": pl.String,
    "domain": pl.String,
    "test_level": pl.Int64,
    "facts": pl.Int64,
}
# The paper's figure shows facts of this level, in domain.
SHOWN_LEVEL, SHOWN_DOMAIN = 4, "id"


def drift(measures: Measures) -> Table:
    """Mean KL(tuned || base) in nats: a row a model, mode, domain and level of the facts.

    ``test_level`` null is the unweighted mean over levels.
    """
    rows: list[dict[str, Any]] = []
    for model in measures.models:
        cells = measures.index.filter(kind="drift", model=model)
        for mode in cells["mode"].drop_nulls().unique(maintain_order=True):
            panel = measures.drift.get((model, mode))
            own = configs(measures.index, "drift", model=model, mode=mode)
            if panel is None:
                rows += [{**one.labels, "mode": mode, **figures(one, None)} for one in own]
                continue
            places = Places(panel)
            for domain in panel.domains:
                for level in (None, *panel.levels(domain)):
                    told = {"mode": mode, "domain": domain, "test_level": level, "facts": panel.count(domain, level)}
                    asked = [(one, told, places.of(one.done), None) for one in own]
                    rows += means(panel, asked, KL, domain, level)
    return Table(
        "drift",
        "KL(tuned || base) by training level and size",
        frame(rows, _TOLD),
        across="asked_size",
        beside=("facts", "size"),
        unit="nats",
        notes=(
            "mode `paper`: first predicted token, over the tuned model's ten likeliest, base asked by cloze; identical "
            "models do not give 0. mode `teacher`: mean over the answer's tokens under the same text.",
        ),
    )


def against_accuracy(drift: Table, accuracy: Table) -> Table:
    """KL beside accuracy on test, a row a model: facts the base knows best, in domain, and the headline accuracy."""
    keys = ("model", "role", "method", "level", "mix", "asked_size", "size")
    level = SHOWN_LEVEL if (drift.frame["test_level"] == SHOWN_LEVEL).any() else None
    moved = drift.frame.filter(pl.col("test_level").eq_missing(level), domain=SHOWN_DOMAIN)
    asked = accuracy.frame.filter(
        pl.col("test_level").is_null(), domain=SHOWN_DOMAIN, measure="contains", form="trained", role="tuned"
    )
    joined = moved.select(
        *keys, "mode", "test_level", kl="value", kl_low="low", kl_high="high", seeds="seeds", state="state", why="why"
    ).join(
        asked.select(*keys, accuracy="value", accuracy_low="low", accuracy_high="high"),
        on=keys,
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    return Table(
        "drift_accuracy",
        "KL(tuned || base) beside accuracy in domain",
        joined,
        unit="number",
        notes=(f"KL on in-domain facts of level {level}." if level is not None else "KL is a mean over levels.",),
    )
