"""Charts of weights and restoration, one small function each: a table in, an Altair chart out.

Every table is tidy and small; shares run from 0 to 1 and are shown in percent.
"""

from typing import Any

import altair as alt
import polars as pl

from knowshift.report.theme import GREEN, GREY, INK, METHODS, MUTED, finish, model_colours, percent_axis


def concentration(table: pl.DataFrame, label: str, colour: str) -> Any:
    """Share of the summed relative change held by the most changed weights. Columns: fraction, share, null_share."""
    series = {"share": "Measured", "null_share": "No training (null)"}
    tidy = table.unpivot(
        ["share", "null_share"], index=["fraction"], variable_name="series", value_name="held"
    ).with_columns(pl.col("series").replace_strict(series))
    names = list(series.values())
    chart = _log_curve(tidy, "held", "share of summed relative change").encode(
        color=alt.Color("series:N", scale=alt.Scale(domain=names, range=[colour, GREY])),
        strokeDash=alt.StrokeDash("series:N", scale=alt.Scale(domain=names, range=[[1, 0], [5, 3]])),
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
            "series:N", scale=alt.Scale(domain=names_all, range=[[1, 0]] * len(present) + [[2, 3]])
        ),
    )
    return finish(chart, "Curves: share of the squared update that restoring each fraction removes.")


def by_layer_and_module(table: pl.DataFrame) -> tuple[Any, Any]:
    """Both axes of a heat map. Columns: layer, module."""
    last: int = table.select(pl.col("layer").max()).item()
    ticks = list(range(0, last + 1, max(1, -(-last // 8))))
    plain = {"ticks": False, "domain": False}
    layer = alt.X("layer:O", title="layer", axis=alt.Axis(values=ticks, labelAngle=0, **plain))
    modules = table["module"].unique(maintain_order=True).to_list()
    return layer, alt.Y("module:N", sort=modules, title=None, axis=alt.Axis(**plain))


def heat_height(table: pl.DataFrame) -> int:
    """The height of a heat map in pixels: a row a module."""
    return max(140, 26 * table["module"].n_unique())


def enrichment(table: pl.DataFrame, label: str) -> Any:
    """Heat map of enrichment. Columns: layer, module, enrichment, log2 (clipped to -2..2)."""
    layer, module = by_layer_and_module(table)
    chart = (
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=layer,
            y=module,
            color=alt.Color(
                "log2:Q",
                scale=alt.Scale(scheme="purpleorange", domain=[-2, 2], domainMid=0),
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
    return finish(chart, text, height=heat_height(table))


def restoration(table: pl.DataFrame, x: str, chosen: float | None) -> Any:
    """Accuracy on validation facts against ``fraction`` or ``removed_norm_share``, every method with its band.

    Columns: method, fraction, removed_norm_share, accuracy, low, high, in_format. A click on the legend
    brings one method to the front.
    """
    methods = _Methods(table, x)
    y = alt.Y("low:Q", title="accuracy on validation facts", axis=percent_axis(), scale=alt.Scale(zero=True))
    bands = methods.chart.mark_area(tooltip=None).encode(y=y, y2="high:Q", opacity=methods.opacity(0.12, 0.02))
    layers = [bands, *methods.drawn("accuracy:Q")]
    if chosen is not None:
        at = alt.Chart(pl.DataFrame({"x": [chosen], "text": ["chosen"]})).encode(x=alt.X("x:Q"))
        rule = at.mark_rule(color=MUTED, strokeDash=[2, 3])
        label = at.mark_text(color=INK, align="left", dx=4, dy=6, baseline="top", fontSize=11)
        layers = [rule, *layers, label.encode(text="text:N", y=alt.value(0))]
    chart = alt.layer(*layers).add_params(methods.picked)
    return finish(chart, f"Curves with 95 % bands: validation accuracy against {methods.title}, by method.", height=330)


def answer_format(table: pl.DataFrame) -> Any:
    """Share of answers in the trained format against the fraction. Columns as for ``restoration``."""
    methods = _Methods(table, "fraction")
    y = alt.Y("in_format:Q", title="answers in format", axis=percent_axis(), scale=alt.Scale(domain=[0, 1]))
    chart = alt.layer(*methods.drawn(y)).add_params(methods.picked)
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
    signed = "datum.value == 0 ? '0' : format(datum.value * 100, '+~g')"
    axis = alt.Axis(labelExpr=signed, tickCount=6)
    x = alt.X("low:Q", title="difference in accuracy, points", axis=axis)
    rules = base.mark_rule(strokeWidth=2.5, color=GREEN).encode(x=x, x2="high:Q")
    dots = base.mark_point(filled=True, size=80, opacity=1, color=GREEN).encode(x="value:Q")
    text = "Points with 95 % intervals about zero: what restoration changed on the test facts."
    return finish(zero + rules + dots, text, height=44 * len(order) + 20)


class _Methods:
    """What the charts of methods share: one look a method, and a legend that picks one."""

    def __init__(self, table: pl.DataFrame, x: str) -> None:
        present = [name for name in METHODS if name in table["method"].unique()]
        self._looks = [METHODS[name] for name in present]
        self._labels = [look[0] for look in self._looks]
        self.picked = alt.selection_point(fields=["label"], bind="legend")
        self.title = "share of weights put back" if x == "fraction" else "share of squared update removed"
        shown = table.filter(pl.col("method").is_in(present)).with_columns(
            label=pl.col("method").replace_strict(dict(zip(present, self._labels, strict=True)))
        )
        ticks = [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6] if x == "fraction" else [0, 0.2, 0.4, 0.6, 0.8, 1]
        scale = alt.Scale(type="sqrt") if x == "fraction" else alt.Scale()
        self.chart = alt.Chart(shown).encode(
            x=alt.X(f"{x}:Q", title=self.title, scale=scale, axis=alt.Axis(format="%", values=ticks, grid=False)),
            color=alt.Color("label:N", scale=self._scale(1), legend=alt.Legend(symbolStrokeWidth=0)),
        )

    def drawn(self, y: Any) -> tuple[Any, Any]:
        """A line and its points."""
        faded = self.opacity(1, 0.12)
        lines = self.chart.mark_line(strokeWidth=2).encode(
            y=y, strokeDash=alt.StrokeDash("label:N", scale=self._scale(2)), opacity=faded
        )
        dots = self.chart.mark_point(filled=True, size=55).encode(
            y=y, shape=alt.Shape("label:N", scale=self._scale(3)), opacity=faded, tooltip=self._tooltip()
        )
        return lines, dots

    def opacity(self, picked: float, other: float) -> Any:
        """One opacity for what the legend picks (everything, at first), another for the rest."""
        return alt.condition(self.picked, alt.value(picked), alt.value(other))

    def _scale(self, part: int) -> Any:
        return alt.Scale(domain=self._labels, range=[look[part] for look in self._looks])

    def _tooltip(self) -> list[Any]:
        return [
            alt.Tooltip("label:N", title="method"),
            alt.Tooltip("fraction:Q", title="weights put back", format=".2~%"),
            alt.Tooltip("removed_norm_share:Q", title="squared update removed", format=".1%"),
            alt.Tooltip("accuracy:Q", format=".1%"),
            alt.Tooltip("low:Q", title="from", format=".1%"),
            alt.Tooltip("high:Q", title="to", format=".1%"),
            alt.Tooltip("in_format:Q", title="in format", format=".1%"),
        ]


def _log_curve(table: pl.DataFrame, y: str, title: str) -> Any:
    x = alt.X(
        "fraction:Q",
        title="most changed share of weights (log scale)",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(values=[0.0001, 0.001, 0.01, 0.1, 1], format=".2~%"),
    )
    return (
        alt.Chart(table)
        .mark_line(strokeWidth=2.5)
        .encode(
            x=x,
            y=alt.Y(f"{y}:Q", title=title, axis=percent_axis(), scale=alt.Scale(domain=[0, 1])),
            tooltip=[
                alt.Tooltip("series:N"),
                alt.Tooltip("fraction:Q", title="share of weights", format=".2~%"),
                alt.Tooltip(f"{y}:Q", title=title, format=".1%"),
            ],
        )
    )
