"""Charts of a study's tables, one function a kind: rows in, an Altair chart of facets out.

Every chart is filtered by the parameters ``filter_NAME`` (null: everything; a list: these; of seeds one). A mark's
datum has its table row's anchor as ``row``. Nothing is computed here but positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from knowshift.report.study.labels import FILTERS
from knowshift.report.theme import BLUE, INK, LEVEL_LOOKS, MUTED, styled

# Text on coloured cells: other shades than the page's, which turn with dark paper while cells do not.
_ON_LIGHT, _ON_DARK = "#111111", "#fefefe"
# Columns that told where a row belongs, which a chart is told in other ways.
_PLACED = ("place", "scope", "trained", "order")
# Points of the first method are filled, of the second open, of others between.
_FILLS = (1.0, 0.0, 0.45, 0.2, 0.7)
_LEGEND = alt.Legend(symbolStrokeWidth=0)
Look = tuple[str, Sequence[int], str]  # colour, dash, shape
_ONE_SEED = "filter_seed == null"
_DASHES = ([6, 3], [2, 2], [10, 2, 2, 2])


def panels(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The rows with their facet's title: subject and columns that are not empty."""
    words = [pl.col(name).cast(pl.String) for name in ("subject", *columns)]
    filled = [pl.when(word == "").then(None).otherwise(word) for word in words]
    return frame.with_columns(panel=pl.concat_str(filled, separator=" · ", ignore_nulls=True))


def by_size(frame: pl.DataFrame, sizes: Sequence[str], unit: str, title: str, order: Sequence[str]) -> Any:
    """A point a set, size and method with its interval, small ones for single seeds; lines of untrained models.

    Columns: those of ``labels.labelled`` with panel, value, low, high.
    """
    groups, methods = _groups(frame), frame["method"].drop_nulls().unique(maintain_order=True).to_list()
    fills = {method: _FILLS[place % len(_FILLS)] for place, method in enumerate(methods)}
    frame = frame.with_columns(filled=pl.col("method").replace_strict(fills, default=None, return_dtype=pl.Float64))
    frame = frame.drop(_PLACED, strict=False)
    base = alt.Chart(frame).encode(
        x=alt.X("size:O", sort=list(sizes), title="facts trained on", axis=alt.Axis(labelAngle=0, ticks=False)),
        xOffset=alt.XOffset("slot:N", sort=[f"{group} {method}" for group in groups for method in methods]),
        color=_colour(groups),
        tooltip=_tooltip(title, unit),
    )
    trained = base.transform_filter("datum.size != null").transform_calculate(slot="datum.group + ' ' + datum.method")
    means = trained.transform_filter("datum.seed == null")
    y = alt.Y("value:Q", title=title, axis=_axis(unit), scale=alt.Scale(zero=False))
    rules = means.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    lines = means.mark_line(strokeWidth=1, opacity=0.5).encode(
        y=y, detail="method:N", xOffset=alt.XOffset("slot:N"), tooltip=alt.value(None)
    )
    looks: dict[str, Any] = {
        "shape": _shape(groups),
        "fill": alt.Fill("group:N", scale=_scale(groups, 0), legend=_LEGEND),
        "fillOpacity": alt.FillOpacity("filled:Q", scale=None),
    }
    dots = means.mark_point(opacity=1, size=60, cursor="pointer").encode(y=y, **looks)
    seeds = (
        trained.transform_filter("datum.seed != null")
        .mark_point(strokeWidth=1, cursor="pointer")
        .encode(
            y=y,
            **looks,
            size=alt.condition(_ONE_SEED, alt.value(9), alt.value(60)),
            opacity=alt.condition(_ONE_SEED, alt.value(0.55), alt.value(1)),
        )
    )
    layers = [lines, rules, seeds, dots]
    still = frame.filter(pl.col("level").is_null())["group"].drop_nulls().unique(maintain_order=True).to_list()
    if still:
        dashes = alt.Scale(domain=still, range=[_DASHES[place % len(_DASHES)] for place in range(len(still))])
        own = alt.Chart(frame).transform_filter("datum.level == null && datum.seed == null")
        rule = own.mark_rule(color=MUTED, strokeWidth=1.25).encode(
            y=y,
            strokeDash=alt.StrokeDash(
                "group:N", scale=dashes, legend=alt.Legend(symbolStrokeColor=MUTED, orient="bottom")
            ),
            tooltip=_tooltip(title, unit),
        )
        layers.insert(0, rule)
    words = f"Points with 95 % intervals: {title} by facts trained on, for {', '.join(groups)}."
    return _faceted(layers, frame, order, words, height=240, single_seeds=True)


def heat(
    frame: pl.DataFrame,
    x: str,
    x_order: Sequence[str],
    y_order: Sequence[str],
    order: Sequence[str],
    *,
    title: str,
    x_title: str,
    unit: str,
    scale: Any,
    shown: str = "value",
    dark: str,
    columns: int = 2,
    seeds: bool = False,
    numbers: bool = True,
) -> Any:
    """A cell a set (down) and ``x`` (across); a dash where one is missing.

    Args:
        title, unit: of the values.
        x_title: of the columns.
        scale: of the colours of the column ``shown``.
        dark: a Vega expression of a datum whose cell needs light text.
        seeds: whether there are rows of single seeds.
        numbers: whether cells are written in.
    """
    frame = frame.drop(_PLACED, strict=False)
    base = alt.Chart(frame).encode(
        x=alt.X(f"{x}:O", sort=list(x_order), title=x_title, axis=alt.Axis(ticks=False, labelAngle=0, domain=False)),
        y=alt.Y("set:O", sort=list(y_order), title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=170)),
        tooltip=_tooltip(title, unit, x),
    )
    known = base.transform_filter("datum.value != null")
    cells = known.mark_rect(cursor="pointer").encode(color=alt.Color(f"{shown}:Q", scale=scale, legend=None))
    gone = (
        base.transform_filter("datum.value == null")
        .mark_text(color=MUTED, cursor="pointer")
        .encode(text=alt.value("–"))
    )
    layers = [cells, gone]
    if numbers:
        written = known.mark_text(fontSize=10, cursor="pointer").encode(
            text=alt.Text("value:Q", format=".0%" if unit == "share" else ".2f"),
            color=alt.condition(dark, alt.value(_ON_DARK), alt.value(_ON_LIGHT)),
        )
        layers.append(written)
    words = f"Heat map: {title}, a row a training set."
    height = {"step": 20}
    return _faceted(
        layers, frame, order, words, height=height, columns=columns, axis=140, single_seeds=seeds, means=True
    )


def dots(
    frame: pl.DataFrame,
    y: str,
    y_order: Sequence[str],
    order: Sequence[str],
    title: str,
    looks: dict[str, tuple[str, str]] | None = None,
    *,
    zero: bool = False,
    axis: int = 150,
) -> Any:
    """A point with its interval a row of ``y``; of several ``kind``s beneath each other.

    Args:
        looks: colour and shape of each ``kind``; None: there is but one.
        zero: whether a line stands at zero.
    """
    frame = frame.drop(_PLACED, strict=False)
    base = alt.Chart(frame).encode(
        y=alt.Y(
            f"{y}:N", sort=list(y_order), title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=axis - 10)
        ),
        tooltip=_tooltip(title, "share", *(["kind"] if looks else [])),
    )
    if looks:
        names = list(looks)
        base = base.encode(
            yOffset=alt.YOffset("kind:N", sort=names),
            color=alt.Color("kind:N", scale=alt.Scale(domain=names, range=[look[0] for look in looks.values()])),
        )
    x = alt.X("low:Q", title=title, axis=_axis("share"), scale=alt.Scale(zero=zero))
    plain = {} if looks else {"color": BLUE}
    rules = base.mark_rule(strokeWidth=1.5, **plain).encode(x=x, x2="high:Q")
    points = base.mark_point(filled=True, opacity=1, size=50, cursor="pointer", **plain).encode(x="value:Q")
    if looks:
        shape = alt.Scale(domain=list(looks), range=[look[1] for look in looks.values()])
        points = points.encode(shape=alt.Shape("kind:N", scale=shape))
    layers = [rules, points]
    if zero:
        layers.insert(0, alt.Chart(frame).mark_rule(color=MUTED).encode(x=alt.datum(0)))
    kinds = frame["kind"].n_unique() if looks else 1
    words = f"Points with 95 % intervals: {title}."
    step = {"step": 22 if kinds == 1 else 10}
    return _faceted(
        layers, frame, order, words, height=step, columns=3, axis=axis, single_seeds=bool(looks), means=True
    )


def curves(
    frame: pl.DataFrame,
    order: Sequence[str],
    title: str,
    looks: Mapping[str, Look],
    *,
    x_title: str,
    x_axis: Any,
    x_scale: Any,
    detail: Sequence[str] = (),
    zero: bool = False,
    columns: int = 3,
    height: int = 170,
    one_domain: bool = False,
) -> Any:
    """Lines over ``fraction``, one a ``kind``: its colour, dash and shape are ``looks``."""
    names = list(looks)
    ranges = [[look[part] for look in looks.values()] for part in range(3)]
    frame = frame.drop(_PLACED, strict=False)
    base = alt.Chart(frame).encode(
        x=alt.X("fraction:Q", title=x_title, axis=x_axis, scale=x_scale),
        y=alt.Y("value:Q", title=title, axis=_axis("share"), scale=alt.Scale(zero=False)),
        color=alt.Color(
            "kind:N", scale=alt.Scale(domain=names, range=ranges[0]), legend=alt.Legend(symbolStrokeWidth=0)
        ),
        detail=[f"{name}:N" for name in ("seed", *detail)],
    )
    lines = base.mark_line(strokeWidth=1.75).encode(
        strokeDash=alt.StrokeDash("kind:N", scale=alt.Scale(domain=names, range=ranges[1]))
    )
    points = base.mark_point(filled=True, size=34, opacity=1, cursor="pointer").encode(
        shape=alt.Shape("kind:N", scale=alt.Scale(domain=names, range=ranges[2])),
        tooltip=_tooltip(title, "share", "kind", "fraction"),
    )
    layers = [lines, points]
    if zero:
        layers.insert(0, alt.Chart(frame).mark_rule(color=MUTED).encode(y=alt.datum(0)))
    words = f"Curves: {title} against {x_title}."
    return _faceted(
        layers,
        frame,
        order,
        words,
        height=height,
        columns=columns,
        single_seeds=True,
        means=True,
        one_domain=one_domain,
    )


def scatter(frame: pl.DataFrame, order: Sequence[str]) -> Any:
    """KL against accuracy, a point a model. Columns: kl, accuracy and those of ``labels.labelled``."""
    groups, title = _groups(frame), "accuracy, in-domain"
    frame = frame.drop(_PLACED, strict=False)
    base = alt.Chart(frame).encode(
        x=alt.X("kl:Q", title="KL to the base model, nats", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        y=alt.Y("accuracy:Q", title=title, axis=_axis("share"), scale=alt.Scale(zero=False)),
        color=_colour(groups),
        tooltip=[
            alt.Tooltip("set:N", title="model"),
            alt.Tooltip("kl:Q", title="KL, nats", format=".3f"),
            alt.Tooltip("accuracy:Q", format=".1%"),
        ],
    )
    rules = base.mark_rule(opacity=0.35).encode(y=alt.Y("accuracy_low:Q", title=title), y2="accuracy_high:Q")
    points = base.mark_point(filled=True, opacity=1, size=70, cursor="pointer").encode(shape=_shape(groups))
    return _faceted([rules, points], frame, order, "Points: accuracy against KL, one a model.", height=240)


def _faceted(
    layers: Sequence[Any],
    frame: pl.DataFrame,
    order: Sequence[str],
    words: str,
    *,
    height: Any,
    columns: int = 2,
    axis: int = 60,
    single_seeds: bool = False,
    means: bool = False,
    one_domain: bool = False,
) -> Any:
    """Layers in facets by ``panel``, with the filters that every chart has.

    Args:
        order: facets' titles.
        columns: most facets side by side.
        axis: pixels left of the facets.
        single_seeds: whether there are rows of single seeds; shown with the means, or with ``means`` in their place.
        one_domain: whether means over both domains are shown until a domain is picked, and only then.
    """
    columns = min(columns, len(order) or 1)
    least, width = {1: (80, 620), 2: (250, 320), 3: (200, 210)}[columns]
    header = alt.Header(
        labels=list(order) != [""], labelFontSize=12, labelColor=INK, labelFontWeight=600, labelLimit=width
    )
    chart = (
        alt.layer(*layers, data=frame)
        .properties(width=width, height=height)
        .facet(facet=alt.Facet("panel:N", sort=list(order), title=None, header=header), columns=columns)
        .add_params(*(alt.param(name=f"filter_{name}", value=None) for name in FILTERS))
    )
    for name in FILTERS:
        chart = chart.transform_filter(_passes(name, single_seeds, means, one_domain))
    meta = {"axis": axis, "least": least}
    return styled(chart, words, legend_columns=3).properties(usermeta=meta)


def _passes(name: str, single_seeds: bool, means: bool, one_domain: bool) -> str:
    picked, value = f"filter_{name}", f"datum.{name}"
    if name == "seed":
        if not single_seeds:
            return "true"
        without = f"{value} == null" if means else "true"
        return f"{picked} == null ? {without} : {value} == {picked} || ({value} == null && datum.size == null)"
    if name == "domain" and one_domain:
        return f"{picked} == null ? {value} == 'both' : indexof({picked}, {value}) >= 0"
    return f"{picked} == null || {value} == null || indexof({picked}, {value}) >= 0"


def _groups(frame: pl.DataFrame) -> list[str]:
    """Training levels and mixes, in order."""
    own = frame.filter(pl.col("level").is_not_null())
    return sorted(own["level"].unique().to_list())


def _scale(groups: Sequence[str], part: int) -> Any:
    looks = [LEVEL_LOOKS[place % len(LEVEL_LOOKS)][part] for place in look_places(groups)]
    return alt.Scale(domain=list(groups), range=looks)


def look_places(groups: Sequence[str]) -> list[int]:
    """Which look each group has: levels their own, mixes those that follow."""
    mixes = iter(range(5, 5 + len(groups)))
    numbers = [group.removeprefix("level ") for group in groups]
    return [int(number) if number in "01234" else next(mixes) for number in numbers]


def _colour(groups: Sequence[str]) -> Any:
    return alt.Color("group:N", scale=_scale(groups, 0), legend=_LEGEND)


def _shape(groups: Sequence[str]) -> Any:
    return alt.Shape("group:N", scale=_scale(groups, 1), legend=_LEGEND)


def _axis(unit: str) -> Any:
    return alt.Axis(format="%", tickCount=5) if unit == "share" else alt.Axis(tickCount=5)


def _tooltip(title: str, unit: str, *more: str) -> list[Any]:
    fmt = ".1%" if unit == "share" else ".3f"
    return [
        alt.Tooltip("set:N", title="model"),
        *(alt.Tooltip(f"{name}:N", title=name.replace("_", " ")) for name in more),
        alt.Tooltip("value:Q", title=title, format=fmt),
        alt.Tooltip("low:Q", title="from", format=fmt),
        alt.Tooltip("high:Q", title="to", format=fmt),
        alt.Tooltip("seed:N", title="seed"),
        alt.Tooltip("state:N", title="state"),
        alt.Tooltip("why:N", title="lacking"),
    ]
