"""Charts of a repair, one small function each: a table in, an Altair chart out."""

from typing import Any

import altair as alt
import polars as pl

from knowshift.report.curves import by_layer_and_module, heat_height
from knowshift.report.theme import (
    BLUE,
    GREEN,
    GREY,
    INK,
    METHODS,
    OCHRE,
    VERMILION,
    VIOLET,
    finish,
    percent_axis,
)

# A title, colour and shape for each method, in the order of the legend.
LOOKS = {
    "coefficients": ("Learned coefficients", BLUE, "circle"),
    "benefit": ("Measured benefit", VERMILION, "diamond"),
    **{name: (title, colour, shape) for name, (title, colour, _, shape) in METHODS.items()},
    "dare": ("DARE", BLUE, "triangle-down"),
    "ties-trim": ("TIES trim", VIOLET, "triangle-down"),
    "fapm": ("FAPM", OCHRE, "triangle-right"),
    "dg-hard": ("DG-Hard", GREEN, "triangle-left"),
    "hft": ("Half reset", GREY, "triangle-right"),
    "tuned": ("Tuned model", INK, "cross"),
}


def title_of(method: str) -> str:
    """A method in words."""
    return "Base model" if method == "base" else LOOKS.get(method, (method,))[0]


def frontier(table: pl.DataFrame, task: str, *, shares: bool) -> Any:
    """Knowledge kept against task kept, every model one point; the chosen one ringed, a click on the legend picks.

    Args:
        table: name, method, settings, facts, items, knowledge, task, chosen.
        task: what the task's axis says.
        shares: whether the task's scores are shares of right answers, and no log-likelihoods.
    """
    methods = [name for name in LOOKS if name in table["method"]]
    methods += sorted(set(table["method"]) - set(methods))
    looks = [LOOKS.get(name, (name, INK, "circle")) for name in methods]
    labels, colours, shapes = ([look[part] for look in looks] for part in range(3))
    shown = table.with_columns(label=pl.col("method").replace_strict(dict(zip(methods, labels, strict=True))))
    picked = alt.selection_point(fields=["label"], bind="legend")
    axis = percent_axis() if shares else alt.Axis(tickCount=5)
    base = alt.Chart(shown).encode(
        x=alt.X("task:Q", title=task, axis=axis, scale=alt.Scale(zero=False, nice=True, padding=12)),
        y=alt.Y(
            "knowledge:Q", title="known facts answered", axis=percent_axis(), scale=alt.Scale(zero=False, padding=12)
        ),
        tooltip=[
            alt.Tooltip("label:N", title="method"),
            alt.Tooltip("settings:N"),
            alt.Tooltip("knowledge:Q", format=".1%"),
            alt.Tooltip("task:Q", format=".1%" if shares else ".3f"),
            alt.Tooltip("facts:Q", format=","),
            alt.Tooltip("items:Q", title="task prompts", format=","),
        ],
    )
    points = base.mark_point(filled=True, size=85).encode(
        color=alt.Color("label:N", sort=labels, scale=alt.Scale(domain=labels, range=colours)),
        shape=alt.Shape("label:N", sort=labels, scale=alt.Scale(domain=labels, range=shapes)),
        opacity=alt.condition(picked, alt.value(0.9), alt.value(0.1)),
    )
    ring = base.transform_filter("datum.chosen").mark_point(size=320, color=INK, strokeWidth=2, filled=False)
    text = f"Points: share of known facts answered against {task}, for {', '.join(labels)}. The chosen one is ringed."
    return finish(alt.layer(ring, points).add_params(picked), text, height=380)


def taken_back(table: pl.DataFrame) -> Any:
    """Heat map of how much of each update was taken back. Columns: layer, module, elements, share."""
    layer, module = by_layer_and_module(table)
    legend = alt.Legend(format="%", gradientLength=200, tickCount=5)
    chart = (
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=layer,
            y=module,
            color=alt.Color("share:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1], clamp=True), legend=legend),
            tooltip=[
                alt.Tooltip("layer:O"),
                alt.Tooltip("module:N"),
                alt.Tooltip("share:Q", title="squared update taken back", format=".1%"),
                alt.Tooltip("elements:Q", title="weights", format=","),
            ],
        )
    )
    text = "Heat map: share of the squared update that the repair took back, by layer and module."
    return finish(chart, text, height=heat_height(table))


def drift(table: pl.DataFrame) -> Any:
    """Divergence from the base before and after, with intervals. Columns: model, value, low, high, in nats."""
    order = table["model"].to_list()
    base = alt.Chart(table).encode(
        y=alt.Y("model:N", sort=order, title=None, axis=alt.Axis(labelLimit=190, domain=False, ticks=False)),
        color=alt.Color("model:N", sort=order, legend=None, scale=alt.Scale(domain=order, range=[VERMILION, GREEN])),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("value:Q", title="mean KL, nats", format=".3f"),
            alt.Tooltip("low:Q", title="from", format=".3f"),
            alt.Tooltip("high:Q", title="to", format=".3f"),
        ],
    )
    x = alt.X("low:Q", title="mean KL to the base, nats a token", scale=alt.Scale(zero=True))
    rules = base.mark_rule(strokeWidth=2.5).encode(x=x, x2="high:Q")
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(x="value:Q")
    text = "Points with 95 % intervals: divergence of the tuned and of the repaired model from the base."
    return finish(rules + dots, text, height=44 * len(order) + 20)
