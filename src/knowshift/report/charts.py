"""Charts of knowledge and tokens, one small function each: a table in, an Altair chart out.

Every table is tidy, one row a mark, and small; nothing is computed here but positions of labels.
Shares run from 0 to 1 and are shown in percent.
"""

from typing import Any

import altair as alt
import polars as pl

from knowshift.report.theme import CHANGES, DOMAINS, INK, LEVELS, finish, model_colours, percent_axis


def mastery(table: pl.DataFrame) -> Any:
    """Facts at each level. Columns: domain, level, facts."""
    shown = table.with_columns(
        domain=pl.col("domain").replace_strict(DOMAINS), at=pl.col("level").replace_strict(dict(enumerate(LEVELS)))
    )
    base = alt.Chart(shown).encode(
        x=_level_axis("share of samples with the answer"),
        xOffset=alt.XOffset("domain:N", sort=list(DOMAINS.values())),
        y=alt.Y("facts:Q", title="facts", axis=alt.Axis(tickCount=4, format=",d")),
        tooltip=[
            alt.Tooltip("domain:N", title="domain"),
            alt.Tooltip("level:O", title="level"),
            alt.Tooltip("facts:Q", format=","),
        ],
    )
    colour = alt.Color("domain:N", scale=alt.Scale(domain=list(DOMAINS.values()), range=["#0072b2", "#a6761d"]))
    bars = base.mark_bar().encode(color=colour)
    labels = base.mark_text(dy=-7, fontSize=11, color=INK).encode(text=alt.Text("facts:Q", format=","))
    return finish(bars + labels, "Bars: number of facts at each mastery level, in-domain and out-of-domain.")


def by_level(table: pl.DataFrame, names: dict[str, str], title: str, what: str, top: float | None = None) -> Any:
    """One figure per model and level with its interval.

    Columns: model, level, facts, value, low, high. ``names`` gives each model's label, in order. With ``top``
    the figures are plain numbers up to it; otherwise they are shares.
    """
    present = [name for name in names if name in table["model"].unique()]
    labels = [names[name] for name in present]
    shown = table.with_columns(
        label=pl.col("model").replace_strict(names),
        at=pl.col("level").replace_strict(dict(enumerate(LEVELS))),
    )
    fmt = ".1%" if top is None else ".3f"
    base = alt.Chart(shown).encode(
        x=_level_axis("mastery level of the fact in the base model"),
        xOffset=alt.XOffset("label:N", sort=labels, scale=alt.Scale(paddingOuter=0.6)),
        color=alt.Color("label:N", sort=labels, scale=alt.Scale(domain=labels, range=model_colours(present))),
        tooltip=[
            alt.Tooltip("label:N", title="model"),
            alt.Tooltip("level:O", title="level"),
            alt.Tooltip("value:Q", title=what, format=fmt),
            alt.Tooltip("low:Q", title="from", format=fmt),
            alt.Tooltip("high:Q", title="to", format=fmt),
            alt.Tooltip("facts:Q", format=","),
        ],
    )
    scale = alt.Scale(domain=[0, 1 if top is None else top])
    y = alt.Y("value:Q", title=title, axis=percent_axis() if top is None else alt.Axis(tickCount=5), scale=scale)
    rules = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=y, shape=alt.Shape("label:N", sort=labels, scale=alt.Scale(domain=labels))
    )
    return finish(rules + dots, f"Points with 95 % intervals: {title} by mastery level for {', '.join(labels)}.")


def transitions(table: pl.DataFrame, names: dict[str, str], domain: str) -> Any:
    """Stacked bars of what became of each fact. Columns: model, change, facts, share, middle, shown."""
    present = [name for name in names if name in table["model"].unique()]
    labels = [names[name] for name in present]
    shown = table.with_columns(
        label=pl.col("model").replace_strict(names),
        order=pl.col("change").replace_strict({name: place for place, name in enumerate(CHANGES)}),
    )
    base = alt.Chart(shown).encode(
        y=alt.Y("label:N", sort=labels, title=None, axis=alt.Axis(labelLimit=150, domain=False, ticks=False)),
        order=alt.Order("order:Q"),
        tooltip=[
            alt.Tooltip("label:N", title="model"),
            alt.Tooltip("change:N"),
            alt.Tooltip("facts:Q", format=","),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    bars = base.mark_bar(height={"band": 0.72}).encode(
        x=alt.X("share:Q", title="share of test facts", axis=percent_axis(), scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("change:N", scale=alt.Scale(domain=list(CHANGES), range=list(CHANGES.values()))),
    )
    numbers = base.mark_text(color="white", fontSize=11).encode(x="middle:Q", text="shown:N")
    text = f"Stacked bars: facts kept, lost, gained and never known by each model, {DOMAINS[domain].lower()}."
    return finish(bars + numbers, text, height=44 * len(labels) + 30)


def _level_axis(title: str) -> Any:
    axis = alt.Axis(labelExpr="split(datum.label, '|')", labelAngle=0, labelOverlap=False, labelPadding=8, ticks=False)
    return alt.X("at:N", sort=list(LEVELS), title=title, axis=axis, scale=alt.Scale(domain=list(LEVELS)))
