"""How charts look: a colour-blind-safe palette with at least 3:1 contrast on white and on dark paper.

The neutral colours are exact strings on purpose: the page's style sheet replaces them for dark paper.
"""

from typing import Any

import altair as alt

INK, MUTED, GRID = "#24292f", "#57606a", "#dfe3e8"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# Okabe and Ito's hues; the lighter ones darkened until they stand out on white.
GREY, VERMILION, BLUE, GREEN, PINK, OCHRE, VIOLET = (
    "#7f7f7f",
    "#d55e00",
    "#0072b2",
    "#009e73",
    "#cc79a7",
    "#a6761d",
    "#7b61b8",
)
MODELS = {
    "base": GREY,
    "base-few-shot": GREY,  # never in one chart with the base asked without examples
    "low": VERMILION,
    "middle": BLUE,
    "restored": GREEN,
    "interpolated": PINK,
}
SPARE = (OCHRE, VIOLET)
METHODS = {
    "relative": ("Relative change", GREEN, [1, 0], "circle"),
    "interpolate": ("Interpolation", PINK, [6, 3], "square"),
    "base-magnitude": ("Smallest base", OCHRE, [3, 2], "triangle-up"),
    "absolute": ("Largest change", VIOLET, [8, 2, 2, 2], "diamond"),
    "random": ("Random", GREY, [2, 2], "cross"),
}
# Training levels 0 to 4, then mixes of levels; a colour and a shape each.
LEVEL_LOOKS = (
    (VERMILION, "circle"),
    (OCHRE, "square"),
    (GREEN, "triangle-up"),
    (BLUE, "diamond"),
    (VIOLET, "triangle-down"),
    (PINK, "cross"),
    (INK, "triangle-right"),
)
# White text reads on all four at 4.5:1.
CHANGES = {"kept": "#0072b2", "lost": "#c24e00", "gained": "#007a5a", "never": "#6b6b6b"}
DOMAINS = {"id": "In-domain", "ood": "Out-of-domain"}
LEVELS = ("0|never", "1|up to ¼", "2|up to ½", "3|up to ¾", "4|more")


def model_colours(names: list[str]) -> list[str]:
    """One colour for each model, the same in every chart."""
    spare = iter(SPARE * len(names))
    return [MODELS.get(name) or next(spare) for name in names]


def percent_axis() -> Any:
    """An axis of shares in percent, with few ticks."""
    return alt.Axis(format="%", tickCount=5)


def finish(chart: Any, description: str, height: int = 260) -> Any:
    """A chart with the house style and its description for screen readers; the width is left to the page."""
    return styled(chart.properties(height=height), description)


def styled(chart: Any, description: str, legend_columns: int = 2) -> Any:
    """The same for a chart whose parts have their own sizes."""
    text = {"labelFont": FONT, "titleFont": FONT, "labelColor": INK, "titleColor": MUTED}
    return chart.properties(description=description, background="transparent").configure(
        font=FONT,
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            **text,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            gridColor=GRID,
            domainColor=MUTED,
            tickColor=MUTED,
            labelOverlap=True,
        ),
        legend=alt.LegendConfig(
            **text,
            orient="top",
            columns=legend_columns,
            title=None,
            labelFontSize=12,
            labelLimit=200,
            symbolSize=90,
            symbolOpacity=1,
        ),
    )


def specification(chart: Any) -> dict[str, Any]:
    """The Vega-Lite specification of ``chart``, to be given a ``width`` in pixels or ``container``.

    A chart of facets keeps the widths of its parts.

    The schema's address is left out: nothing in the page may point outside.
    """
    if not isinstance(chart, alt.FacetChart):
        chart = chart.properties(autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
    with alt.data_transformers.enable("default", max_rows=None):
        spec: dict[str, Any] = chart.to_dict()
    spec.pop("$schema", None)
    return spec
