"""The plots of a comparison, from its tables: one look a method, the same in every plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
import vl_convert

from knowshift.files import atomic_file
from knowshift.report.theme import (
    BLUE,
    DOMAINS,
    GREEN,
    GREY,
    INK,
    MUTED,
    OCHRE,
    PINK,
    VERMILION,
    VIOLET,
    finish,
    percent_axis,
    specification,
)

WIDTH = 620
PADDING = 16  # a browser's font is wider than the one that labels were measured in
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
# Five colours and six shapes: thirty looks before one comes again.
_OTHERS = (BLUE, OCHRE, VIOLET, PINK, GREY)


class Looks:
    """A colour and a shape for each method; the target's and our own colour are nobody else's."""

    def __init__(self, methods: Sequence[str], target: str, ours: str | None) -> None:
        self.methods = list(methods)
        fixed = {target: (VERMILION, "circle"), ours: (GREEN, "diamond")}
        others = [name for name in methods if name not in fixed]
        pairs = ((_OTHERS[at % len(_OTHERS)], SHAPES[at % len(SHAPES)]) for at in range(99))
        looks = fixed | dict(zip(others, pairs, strict=False))
        self._looks = [looks[name] for name in methods]

    def colour(self, legend: bool = True) -> Any:
        """Colour by method."""
        shown = alt.Legend(orient="right", columns=1) if legend else None
        return alt.Color("name:N", sort=self.methods, scale=self._scale(0), legend=shown)

    def shape(self, legend: bool = True) -> Any:
        """Shape by method."""
        shown = alt.Legend(orient="right", columns=1) if legend else None
        return alt.Shape("name:N", sort=self.methods, scale=self._scale(1), legend=shown)

    def _scale(self, part: int) -> Any:
        return alt.Scale(domain=self.methods, range=[look[part] for look in self._looks])


def frontier(points: pl.DataFrame, chosen: pl.DataFrame, mark: float, looks: Looks) -> Any:
    """Known out-of-domain facts kept against in-domain accuracy on validation: every point small, the chosen large.

    Columns: name, setting, id_accuracy, kept (a share).
    """
    x = alt.X("id_accuracy:Q", title="in-domain accuracy, validation", axis=percent_axis(), scale=alt.Scale(zero=False))
    y = alt.Y("kept:Q", title="known out-of-domain facts kept, validation", axis=percent_axis())
    both = {"x": x, "y": y, "color": looks.colour(), "shape": looks.shape()}
    small = alt.Chart(points).mark_point(filled=True, size=34, opacity=0.5).encode(**both)
    large = alt.Chart(chosen).mark_point(filled=True, size=190, opacity=1, stroke="white", strokeWidth=1).encode(**both)
    at = alt.Chart(pl.DataFrame({"x": [mark], "text": ["mark"]})).encode(x=alt.X("x:Q"))
    label = at.mark_text(color=INK, align="left", dx=4, baseline="top", fontSize=11).encode(
        text="text:N", y=alt.value(0)
    )
    chart = at.mark_rule(color=MUTED, strokeDash=[2, 3]) + label + small + large
    return finish(chart, "Points: known facts kept against in-domain accuracy, every setting of every method.", 380)


def confirmed(table: pl.DataFrame, looks: Looks) -> Any:
    """The same on test, with intervals both ways.

    Columns: name, accuracy, accuracy_low, accuracy_high, kept, kept_low, kept_high.
    """
    x = alt.X("accuracy_low:Q", title="in-domain accuracy, test", axis=percent_axis(), scale=alt.Scale(zero=False))
    y = alt.Y("kept_low:Q", title="known out-of-domain facts kept, test", axis=percent_axis())
    chart = alt.Chart(table).encode(color=looks.colour())
    across = chart.mark_rule(opacity=0.45).encode(x=x, x2="accuracy_high:Q", y="kept:Q")
    upright = chart.mark_rule(opacity=0.45).encode(x="accuracy:Q", y=y, y2="kept_high:Q")
    dots = chart.mark_point(filled=True, size=190, opacity=1, stroke="white", strokeWidth=1)
    drawn = dots.encode(x="accuracy:Q", y="kept:Q", shape=looks.shape())
    return finish(across + upright + drawn, "Points with 95 % intervals: facts kept against accuracy on test.", 380)


def lost(table: pl.DataFrame, methods: Sequence[str]) -> Any:
    """Known facts lost on test with intervals, by method and domain. Columns: name, domain, lost, low, high."""
    shown, order = table.with_columns(domain=pl.col("domain").replace_strict(DOMAINS)), list(DOMAINS.values())
    scales = {"color": ("#0072b2", "#a6761d"), "shape": ("circle", "square")}
    looks = {
        name: getattr(alt, name.capitalize())("domain:N", sort=order, scale=alt.Scale(domain=order, range=list(values)))
        for name, values in scales.items()
    }
    y = alt.Y("name:N", sort=list(methods), title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=190))
    chart = alt.Chart(shown).encode(y=y, yOffset=alt.YOffset("domain:N", sort=order), color=looks["color"])
    x = alt.X("low:Q", title="known facts lost, test", axis=percent_axis(), scale=alt.Scale(zero=True))
    rules = chart.mark_rule(strokeWidth=2.5).encode(x=x, x2="high:Q")
    dots = chart.mark_point(filled=True, size=80, opacity=1).encode(x="lost:Q", shape=looks["shape"])
    text = "Points with 95 % intervals: share of known facts lost on test, by method and domain."
    return finish(rules + dots, text, height=34 * len(methods))


def save(chart: Any, path: Path) -> None:
    """Write a chart as SVG."""
    spec = specification(chart) | {"width": WIDTH, "background": "white", "padding": PADDING}
    with atomic_file(path) as partial:
        partial.write_text(vl_convert.vegalite_to_svg(spec), "utf-8")
