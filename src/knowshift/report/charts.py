"""The charts, one small function each: a table in, an Altair chart out.

Every table is tidy, one row a mark, and small; nothing is computed here but positions of labels.
Shares run from 0 to 1 and are shown in percent.
"""

from typing import Any

import altair as alt
import polars as pl

from knowshift.report.theme import CHANGES, DOMAINS, GREY, INK, LEVELS, METHODS, MUTED, finish, model_colours

PERCENT = "%"
SPLIT_LABEL = "split(datum.label, '|')"


def mastery(table: pl.DataFrame) -> Any:
    """Facts at each level. Columns: domain, level, facts."""
    shown = table.with_columns(
        domain=pl.col("domain").replace_strict(DOMAINS), at=pl.col("level").replace_strict(dict(enumerate(LEVELS)))
    )
    base = alt.Chart(shown).encode(
        x=_level_axis("share of the base model's samples that hold the answer"),
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


def by_level(table: pl.DataFrame, names: dict[str, str], title: str, what: str, *, share: bool = True) -> Any:
    """One figure per model and level with its interval.

    Columns: model, level, facts, value, low, high. ``names`` gives each model's label, in order.
    """
    present = [name for name in names if name in table["model"].unique()]
    labels = [names[name] for name in present]
    shown = table.with_columns(
        label=pl.col("model").replace_strict(names),
        at=pl.col("level").replace_strict(dict(enumerate(LEVELS))),
    )
    fmt = ".1%" if share else ".3f"
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
    y = alt.Y("value:Q", title=title, axis=_percent_axis() if share else alt.Axis(tickCount=5))
    rules = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=y, shape=alt.Shape("label:N", sort=labels, legend=None)
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
        x=alt.X("share:Q", title="share of test facts", axis=_percent_axis(), scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("change:N", scale=alt.Scale(domain=list(CHANGES), range=list(CHANGES.values()))),
    )
    numbers = base.mark_text(color="white", fontSize=11).encode(x="middle:Q", text="shown:N")
    text = f"Stacked bars: facts kept, lost, gained and never known by each model, {DOMAINS[domain].lower()}."
    return finish(bars + numbers, text, height=44 * len(labels) + 30)


def concentration(table: pl.DataFrame, label: str, colour: str) -> Any:
    """Share of the summed relative change held by the most changed weights. Columns: fraction, share, null_share."""
    series = {"share": f"{label}, measured", "null_share": "Same size, no training"}
    tidy = table.unpivot(
        ["share", "null_share"], index=["fraction"], variable_name="series", value_name="held"
    ).with_columns(pl.col("series").replace_strict(series))
    names = list(series.values())
    chart = _log_curve(tidy, "held", "share of summed relative change").encode(
        color=alt.Color("series:N", scale=alt.Scale(domain=names, range=[colour, GREY])),
        strokeDash=alt.StrokeDash("series:N", legend=None, scale=alt.Scale(domain=names, range=[[1, 0], [5, 3]])),
    )
    text = f"Curves: share of the summed relative change held by the most changed weights, {label} and its null."
    return finish(chart, text)


def energy(table: pl.DataFrame, names: dict[str, str]) -> Any:
    """Share of the squared update removed by restoring a fraction. Columns: model, fraction, energy_share."""
    present = [name for name in names if name in table["model"].unique()]
    labels = [names[name] for name in present]
    shown = table.with_columns(series=pl.col("model").replace_strict(names))
    even = "Equal shares"
    reference = shown.filter(model=present[0]).with_columns(energy_share="fraction", series=pl.lit(even))
    shown = pl.concat([shown, reference], how="diagonal")
    names_all = [*labels, even]
    chart = _log_curve(shown, "energy_share", "share of squared update").encode(
        color=alt.Color("series:N", scale=alt.Scale(domain=names_all, range=[*model_colours(present), GREY])),
        strokeDash=alt.StrokeDash(
            "series:N", legend=None, scale=alt.Scale(domain=names_all, range=[[1, 0]] * len(present) + [[2, 3]])
        ),
    )
    return finish(chart, "Curves: share of the squared update that restoring each fraction removes.")


def enrichment(table: pl.DataFrame, label: str) -> Any:
    """Heat map of enrichment. Columns: layer, module, enrichment, log2 (clipped to -2..2)."""
    modules = table["module"].unique(maintain_order=True).to_list()
    chart = (
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, ticks=False, domain=False)),
            y=alt.Y("module:N", sort=modules, title=None, axis=alt.Axis(ticks=False, domain=False)),
            color=alt.Color(
                "log2:Q",
                scale=alt.Scale(scheme="purpleorange", domain=[-2, 2], domainMid=0, reverse=False),
                legend=alt.Legend(
                    values=[-2, -1, 0, 1, 2],
                    labelExpr="{'-2': '¼×', '-1': '½×', '0': '1×', '1': '2×', '2': '4×'}[datum.value]",
                    gradientLength=200,
                ),
            ),
            tooltip=[
                alt.Tooltip("layer:O"),
                alt.Tooltip("module:N"),
                alt.Tooltip("enrichment:Q", format=".2f"),
                alt.Tooltip("parameters:Q", format=","),
            ],
        )
    )
    text = f"Heat map: over- and under-representation of each layer and module among restored weights, {label}."
    return finish(chart, text, height=max(140, 26 * len(modules)))


def restoration(table: pl.DataFrame, x: str, chosen: float | None) -> Any:
    """Accuracy on validation facts against ``fraction`` or ``removed_norm_share``, every method with its band.

    Columns: method, fraction, removed_norm_share, accuracy, low, high, in_format. A click on the legend
    brings one method to the front.
    """
    title = "share of weights put back" if x == "fraction" else "share of squared update removed"
    lines, picked = _methods(table, x, title)
    band = lines.mark_area(strokeWidth=0).encode(
        y=alt.Y("low:Q", title="accuracy, validation", axis=_percent_axis(), scale=alt.Scale(zero=True)),
        y2="high:Q",
        opacity=alt.condition(picked, alt.value(0.13), alt.value(0.02)),
        tooltip=alt.value(None),
    )
    drawn = lines.mark_line(strokeWidth=2).encode(y="accuracy:Q", tooltip=alt.value(None))
    dots = _dots(lines, "accuracy:Q")
    layers = [band, drawn, dots]
    if chosen is not None:
        mark = pl.DataFrame({"x": [chosen], "text": ["chosen"]})
        at = alt.Chart(mark).encode(x=alt.X("x:Q"))
        layers = [
            at.mark_rule(color=MUTED, strokeDash=[2, 3]),
            *layers,
            at.mark_text(color=INK, align="left", dx=4, dy=6, baseline="top", fontSize=11).encode(
                text="text:N", y=alt.value(0)
            ),
        ]
    chart = alt.layer(*layers).add_params(picked)
    return finish(chart, f"Curves with 95 % bands: accuracy against {title}, for every method.", height=330)


def answer_format(table: pl.DataFrame) -> Any:
    """Share of answers in the trained format against the fraction. Columns: method, fraction, in_format."""
    lines, picked = _methods(table, "fraction", "share of weights put back")
    drawn = lines.mark_line(strokeWidth=2).encode(
        y=alt.Y("in_format:Q", title="answers in format", axis=_percent_axis(), scale=alt.Scale(domain=[0, 1]))
    )
    chart = alt.layer(drawn, _dots(lines, "in_format:Q")).add_params(picked)
    return finish(chart, "Curves: share of answers in the trained format against the share of weights put back.")


def differences(table: pl.DataFrame) -> Any:
    """Paired differences with intervals about zero. Columns: comparison, value, low, high."""
    order = table["comparison"].to_list()
    base = alt.Chart(table).encode(
        y=alt.Y("comparison:N", sort=order, title=None, axis=alt.Axis(labelLimit=190, domain=False, ticks=False)),
        tooltip=[
            alt.Tooltip("comparison:N"),
            alt.Tooltip("value:Q", title="difference", format="+.1%"),
            alt.Tooltip("low:Q", title="from", format="+.1%"),
            alt.Tooltip("high:Q", title="to", format="+.1%"),
        ],
    )
    zero = alt.Chart(pl.DataFrame({"x": [0.0]})).mark_rule(color=MUTED).encode(x="x:Q")
    title = "difference in test accuracy, percentage points"
    axis = alt.Axis(labelExpr="format(datum.value * 100, '+d')", tickCount=6)
    rules = base.mark_rule(strokeWidth=2.5, color="#009e73").encode(
        x=alt.X("low:Q", title=title, axis=axis), x2="high:Q"
    )
    dots = base.mark_point(filled=True, size=80, opacity=1, color="#009e73").encode(x="value:Q")
    text = "Points with 95 % intervals about zero: what restoration changed on the test facts."
    return finish(zero + rules + dots, text, height=44 * len(order) + 20)


def _methods(table: pl.DataFrame, x: str, title: str) -> tuple[Any, Any]:
    present = [name for name in METHODS if name in table["method"].unique()]
    looks = [METHODS[name] for name in present]
    labels = [look[0] for look in looks]
    shown = table.filter(pl.col("method").is_in(present)).with_columns(
        label=pl.col("method").replace_strict({name: METHODS[name][0] for name in present})
    )
    picked = alt.selection_point(fields=["label"], bind="legend")
    scale = alt.Scale(type="sqrt") if x == "fraction" else alt.Scale()
    values = [0.01, 0.05, 0.1, 0.2, 0.4, 0.6] if x == "fraction" else [0, 0.2, 0.4, 0.6, 0.8, 1]
    lines = alt.Chart(shown).encode(
        x=alt.X(f"{x}:Q", title=title, scale=scale, axis=alt.Axis(format=PERCENT, values=values, grid=False)),
        color=alt.Color("label:N", scale=alt.Scale(domain=labels, range=[look[1] for look in looks])),
        strokeDash=alt.StrokeDash(
            "label:N", legend=None, scale=alt.Scale(domain=labels, range=[look[2] for look in looks])
        ),
        shape=alt.Shape("label:N", legend=None, scale=alt.Scale(domain=labels, range=[look[3] for look in looks])),
        opacity=alt.condition(picked, alt.value(1), alt.value(0.12)),
        tooltip=[
            alt.Tooltip("label:N", title="method"),
            alt.Tooltip("fraction:Q", title="weights put back", format=PERCENT),
            alt.Tooltip("removed_norm_share:Q", title="squared update removed", format=".1%"),
            alt.Tooltip("accuracy:Q", format=".1%"),
            alt.Tooltip("low:Q", title="from", format=".1%"),
            alt.Tooltip("high:Q", title="to", format=".1%"),
            alt.Tooltip("in_format:Q", title="in format", format=".1%"),
        ],
    )
    return lines, picked


def _dots(lines: Any, y: str) -> Any:
    return lines.mark_point(filled=True, size=55).encode(y=y)


def _log_curve(table: pl.DataFrame, y: str, title: str) -> Any:
    return (
        alt.Chart(table)
        .mark_line(strokeWidth=2.5)
        .encode(
            x=alt.X(
                "fraction:Q",
                title="most changed share of weights (log scale)",
                scale=alt.Scale(type="log"),
                axis=alt.Axis(values=[0.001, 0.01, 0.1, 1], format=PERCENT, grid=True),
            ),
            y=alt.Y(f"{y}:Q", title=title, axis=_percent_axis(), scale=alt.Scale(domain=[0, 1])),
            tooltip=[
                alt.Tooltip("series:N"),
                alt.Tooltip("fraction:Q", title="share of weights", format=".2~%"),
                alt.Tooltip(f"{y}:Q", title=title, format=".1%"),
            ],
        )
    )


def _level_axis(title: str) -> Any:
    axis = alt.Axis(labelExpr=SPLIT_LABEL, labelAngle=0, labelOverlap=False, ticks=False)
    return alt.X("at:N", sort=list(LEVELS), title=title, axis=axis, scale=alt.Scale(domain=list(LEVELS)))


def _percent_axis() -> Any:
    return alt.Axis(format=PERCENT, tickCount=5)
