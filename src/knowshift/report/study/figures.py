"""Which figures a study's page has: the rows of a table that each shows, and how it is to be read."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from typing import Any

import altair as alt
import polars as pl

from knowshift.report.blocks import Panel
from knowshift.report.study import marks
from knowshift.report.study.labels import in_order, labelled
from knowshift.report.study.rows import lacking
from knowshift.report.study.source import Source
from knowshift.report.theme import GREY, LEVEL_LOOKS, METHODS, PINK, VIOLET
from knowshift.report.words import count, fraction, listing

# Layers and modules are shown at the listed fraction nearest to this; the paper's tables are of it.
SHOWN = 0.2
_SPARE = (("#56606b", "triangle-left"), (PINK, "triangle-right"), (VIOLET, "stroke"))


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a study's page: its table's name, title, how to read it, what is lacking, and its chart."""

    table: str
    title: str
    reading: str
    lacking: str
    panel: Panel


def figures(source: Source) -> list[Figure]:
    """Every figure whose table has any figure to show."""
    found = []
    for name, title, reading, made in _FIGURES:
        if name not in source.tables:
            continue
        chart = made(source)
        if chart is not None:
            reading += _fills(source.tables[name].frame) if name in ("size", "transitions", "drift") else ""
            found.append(Figure(name, title, reading, _lacking(source.tables[name].frame), Panel(name, chart)))
    return found


def _size(source: Source) -> Any:
    frame = labelled(source, "size", seeds=False)
    if "seeds" in source.tables:
        own = labelled(source, "accuracy").filter(pl.col("seed").is_not_null(), pl.col("test_level").is_null())
        frame = pl.concat(
            [frame, own.select(column for column in own.columns if column in frame.columns)], how="diagonal"
        )
    return _by_size(frame, "share", "accuracy, mean over levels", "scope")


def _accuracy(source: Source) -> Any:
    frame = labelled(source, "accuracy").filter(pl.col("measure") == "contains", pl.col("domain").is_not_null())
    if frame["value"].null_count() == frame.height:
        return None
    named = pl.when(pl.col("test_level").is_null()).then(pl.lit("mean")).otherwise(pl.col("test_level").cast(pl.String))
    frame = marks.panels(_slim(frame.with_columns(asked=named), "asked"), "scope")
    across = [*(level for level in sorted(set(frame["asked"])) if level != "mean"), "mean"]
    top = float(frame.select(pl.col("value").max()).item())
    return marks.heat(
        frame,
        "asked",
        across,
        in_order(frame, "set"),
        _panel_order(frame),
        title="accuracy",
        x_title="mastery level of the facts asked",
        unit="share",
        scale=alt.Scale(scheme="viridis", domain=[0, max(top, 0.01)]),
        dark=f"datum.value < {top * 0.6}",
        seeds=True,
    )


def _transitions(source: Source) -> Any:
    frame = labelled(source, "transitions")
    words = {"lost": "Lost of those known", "gained": "Gained of those not known"}
    frame = frame.with_columns(words=pl.col("change").replace(words))
    return _by_size(frame, "share", "share of facts", "words", "scope")


def _strategies(source: Source) -> Any:
    frame = labelled(source, "strategies").filter(pl.col("measure") == "contains", pl.col("value").is_not_null())
    if frame.is_empty():
        return None
    frame = marks.panels(_slim(frame, "strategy"), "scope")
    order = frame["strategy"].unique(maintain_order=True).to_list()
    return marks.dots(frame, "strategy", order, _panel_order(frame), "accuracy on test", axis=190)


def _restoration(source: Source) -> Any:
    frame = _restored(labelled(source, "restoration"))
    if frame.is_empty():
        return None
    frame = marks.panels(_slim(frame, "kind", "fraction"), "set")
    looks: dict[str, marks.Look] = {name: (look[0], look[2], look[1]) for name, look in _looks(frame).items()}
    axis = alt.Axis(format="%", values=[0.01, 0.05, 0.1, 0.2, 0.4, 0.6], grid=False)
    return marks.curves(
        frame, _panel_order(frame, "place"), "accuracy gained", looks,
        x_title="weights put back", x_axis=axis, x_scale=alt.Scale(type="sqrt"), detail=("domain",),
        zero=True, one_domain=True,
    )  # fmt: skip


def _confirmed(source: Source) -> Any:
    frame = _restored(labelled(source, "confirmed"))
    if frame.is_empty():
        return None
    frame = marks.panels(_slim(frame, "kind"), "scope")
    looks = {name: (look[0], look[1]) for name, look in _looks(frame).items()}
    return marks.dots(
        frame, "set", in_order(frame, "set"), _panel_order(frame), "accuracy gained on test", looks, zero=True, axis=150
    )


def _parts(source: Source) -> Any:
    frame = labelled(source, "parts").filter(
        pl.col("measure") == "difference", pl.col("value").is_not_null(), pl.col("setting").is_not_null()
    )
    if frame.is_empty():
        return None
    part = pl.col("setting").str.split("=").list.last()
    frame = marks.panels(_slim(frame.with_columns(part=part), "part"), "scope")
    return marks.heat(
        frame, "part", in_order(frame, "part", "order"), in_order(frame, "set"), _panel_order(frame),
        title="accuracy gained", x_title="part put back", unit="share", scale=_about_zero(frame, "value"),
        dark=f"abs(datum.value) > {0.7 * _most(frame, 'value')}",
    )  # fmt: skip


def _drift(source: Source) -> Any:
    frame = labelled(source, "drift")
    frame = frame.filter(pl.col("test_level").is_null()) if "test_level" in frame.columns else frame
    modes = frame["mode"].drop_nulls().n_unique()
    return _by_size(frame, "nats", "KL to the base model, nats", *(("mode", "scope") if modes > 1 else ("scope",)))


def _drift_accuracy(source: Source) -> Any:
    frame = labelled(source, "drift_accuracy", seeds=False).drop_nulls(["kl", "accuracy"])
    if frame.is_empty():
        return None
    frame = marks.panels(frame, *(["mode"] if frame["mode"].n_unique() > 1 else []))
    return marks.scatter(frame.drop("place", "state", "why"), _panel_order(frame))


def _concentration(source: Source) -> Any:
    frame = labelled(source, "concentration").filter(
        pl.col("measure").is_in(["share", "null_share"]), pl.col("value").is_not_null(), pl.col("group").is_not_null()
    )
    if frame.is_empty():
        return None
    kind = pl.when(pl.col("measure") == "share").then(pl.col("group")).otherwise(pl.lit("without training"))
    sizes = pl.concat_str(pl.col("size"), pl.lit(" facts"))
    frame = marks.panels(_slim(frame.with_columns(kind=kind, words=sizes), "kind", "fraction", "words"), "words")
    groups = sorted(set(frame["group"]))
    places = marks.look_places(groups)
    looks: dict[str, marks.Look] = {
        group: (LEVEL_LOOKS[place % len(LEVEL_LOOKS)][0], [1, 0], LEVEL_LOOKS[place % len(LEVEL_LOOKS)][1])
        for group, place in zip(groups, places, strict=True)
    }
    looks["without training"] = (GREY, [4, 3], "cross")
    axis = alt.Axis(format=".2~%", values=[0.001, 0.01, 0.1, 1])
    return marks.curves(
        frame, _panel_order(frame, "trained"), "share of the summed change", looks,
        x_title="most changed weights", x_axis=axis, x_scale=alt.Scale(type="log"), detail=("set",), height=200,
    )  # fmt: skip


def _modules(source: Source) -> Any:
    return _enrichment(source, "modules", "module")


def _layers(source: Source) -> Any:
    return _enrichment(source, "layers", "layer")


def _enrichment(source: Source, name: str, by: str) -> Any:
    frame = labelled(source, name, seeds=False).filter(
        pl.col("measure") == "enrichment", pl.col("value").is_not_null(), pl.col(by).is_not_null()
    )
    if frame.is_empty():
        return None
    at = min(set(frame["fraction"]), key=lambda one: abs(one - SHOWN))
    logs = [max(-2.0, min(2.0, log2(value))) if value > 0 else -2.0 for value in frame["value"]]
    frame = frame.with_columns(log2=pl.Series(logs, dtype=pl.Float64).round(4)).filter(pl.col("fraction") == at)
    frame = marks.panels(_slim(frame, by, "log2"))
    places = [str(value) for value in frame[by].unique(maintain_order=True)]
    return marks.heat(
        frame, by, places, in_order(frame, "set"), _panel_order(frame), columns=1, shown="log2",
        title=f"enrichment among the {fraction(at)} most changed", x_title=by, unit="ratio", numbers=by == "module",
        scale=_about_zero(frame, "log2", 0.5), dark=f"abs(datum.log2) > {0.7 * max(0.5, _most(frame, 'log2'))}",
    )  # fmt: skip


def _by_size(frame: pl.DataFrame, unit: str, title: str, *panels: str) -> Any:
    frame = frame.filter(pl.col("value").is_not_null())
    if frame["size"].null_count() == frame.height:
        return None
    frame = marks.panels(_slim(frame, *panels), *panels)
    sized = frame.drop_nulls("size").with_columns(
        as_number=pl.col("size").cast(pl.Int64, strict=False).fill_null(1 << 62)
    )
    return marks.by_size(frame, in_order(sized, "size", "as_number"), unit, title, _panel_order(frame))


def _restored(frame: pl.DataFrame) -> pl.DataFrame:
    """Differences from the tuned model, with ``kind``: the method in words, and its setting."""
    names = {name: look[0] for name, look in METHODS.items()}
    kind = pl.concat_str([pl.col("restoration").replace(names), pl.col("setting")], separator=" ", ignore_nulls=True)
    return frame.filter(pl.col("measure") == "difference", pl.col("value").is_not_null()).with_columns(kind=kind)


def _looks(frame: pl.DataFrame) -> dict[str, tuple[str, str, list[int]]]:
    """Colour, shape and dash of every kind of restoration, those that every study has first."""
    known = {look[0]: (look[1], look[3], list(look[2])) for look in METHODS.values()}
    kinds = frame["kind"].unique(maintain_order=True).to_list()
    others = [kind for kind in kinds if kind not in known]
    rest = {kind: (*_SPARE[place % len(_SPARE)], [1, 2]) for place, kind in enumerate(others)}
    return {kind: look for kind, look in {**known, **rest}.items() if kind in kinds}


def _slim(frame: pl.DataFrame, *more: str) -> pl.DataFrame:
    """What charts read, and no more; ``order``: the rows' own."""
    wanted = (
        "row", "subject", "level", "size", "method", "domain", "seed", "group", "set", "trained", "place", "scope",
        "value", "low", "high", "state", "why", *more,
    )  # fmt: skip
    state = pl.when(pl.col("state") != "complete").then(pl.col("state"))
    return frame.select(name for name in dict.fromkeys(wanted) if name in frame.columns).with_columns(
        state=state, order=pl.int_range(pl.len())
    )


def _panel_order(frame: pl.DataFrame, by: str = "order") -> list[str]:
    own = frame.with_columns(order=pl.int_range(pl.len()))
    return in_order(own, "panel", by)


def _most(frame: pl.DataFrame, column: str) -> float:
    return max(float(frame.select(pl.col(column).abs().max()).item() or 0), 1e-6)


def _about_zero(frame: pl.DataFrame, column: str, least: float = 0.0) -> Any:
    most = max(_most(frame, column), least)
    return alt.Scale(scheme="purpleorange", domain=[-most, most], domainMid=0)


def _fills(frame: pl.DataFrame) -> str:
    """Which method's points are filled, where there are several."""
    first, *others = frame["method"].drop_nulls().unique(maintain_order=True).to_list() or [""]
    return f" Filled points: {first}; open or pale ones: {listing(others)}." if others else ""


def _lacking(frame: pl.DataFrame) -> str:
    rows, missing, partial = lacking(frame)
    told = ((missing, "missing"), (partial, "with fewer seeds than asked"))
    said = listing([f"{count(number)} {words}" for number, words in told if number])
    return f"Of {count(rows, 'figure')} of its table, {said}; the rows say why." if said else ""


_FIGURES: tuple[tuple[str, str, str, Callable[[Source], Any]], ...] = (
    (
        "size", "Accuracy by facts trained on",
        "Test accuracy, the unweighted mean over mastery levels. Large points are means over seeds with 95% intervals, "
        "small ones single seeds; dashed lines are models before training.", _size,
    ),
    (
        "accuracy", "Accuracy by training set and level of the facts asked",
        "A row a training set, a column a mastery level of the test facts in the base model.", _accuracy,
    ),
    (
        "transitions", "Facts lost and gained",
        "Of the facts that the base model knew, the share the trained model no longer answers; of the others, the "
        "share it now does.", _transitions,
    ),
    ("strategies", "Strategies", "Each at the set and size that did best on validation; asked on test.", _strategies),
    (
        "restoration", "Taking back part of the update",
        "Validation accuracy less the tuned model's, by the share of weights put back; the mean of both domains "
        "until a domain is picked. The green line puts back the most changed weights; the others are controls and "
        "rivals.",
        _restoration,
    ),
    (
        "confirmed", "What was chosen, on test",
        "Test accuracy less the tuned model's: each seed's choice made on validation, and its matched controls.",
        _confirmed,
    ),
    (
        "parts", "Whole parts put back",
        "Validation accuracy less the tuned model's, with one part's update taken back.", _parts,
    ),
    (
        "drift", "Divergence from the base model", "Mean KL of next-token distributions on test facts, over mastery "
        "levels alike.", _drift,
    ),
    ("drift_accuracy", "Divergence and accuracy", "A point a trained model, mean over seeds.", _drift_accuracy),
    (
        "concentration", "How concentrated the change is",
        "Share of the summed relative change held by the most changed weights; dashed, the same weights with noise in "
        "place of training.", _concentration,
    ),
    (
        "modules", "Where the most changed weights are, by module",
        "Enrichment: their share in a module over its share of the parameters. 1 is what size alone gives.", _modules,
    ),
    ("layers", "Where the most changed weights are, by layer", "The same by transformer block.", _layers),
)  # fmt: skip
