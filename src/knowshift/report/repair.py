"""The section about restoration: curves with their controls, the choice on validation, the test once."""

import polars as pl

from knowshift.report import commands, curves, tables
from knowshift.report.blocks import Figure, Panel, Section, Table
from knowshift.report.data import CURVE, Run
from knowshift.report.theme import METHODS
from knowshift.report.words import Interval, fraction, percent, percent_range, points_range

# A share of answers in format this much lower than the tuned model's is a collapse of form.
COLLAPSE = 0.2
# From this share of the squared update on, nothing of the training is left.
UNDONE = 0.9999


def restoration(run: Run) -> Section:
    """What putting weights back gives back."""
    section = Section(
        "restoration", "What restoring gives back", commands=commands.restoration(run) + commands.whole(run)[:1]
    )
    curve = run.table("sweep/curve.parquet", CURVE)
    if curve is None:
        section.lead.append("Restoration was not tried in this run.")
        return section
    section.lead.append(
        f"A share of the weights of {run.phrase(run.main.name)} is put back to the base model's values, those with "
        "the largest relative change first, and the validation facts are asked again. The controls put back as many "
        "weights chosen otherwise (at random, the smallest base weights, the largest absolute changes), or "
        "interpolate all weights until as much of the squared update is gone."
    )
    section.blocks.append(_curves(run, curve))
    section.blocks.append(_form(run, curve))
    section.sources.extend(["sweep/curve.parquet", "sweep/answers.parquet", "sweep/choice.json"])
    confirmed = _confirmed(run)
    if confirmed:
        section.blocks.append(confirmed)
        section.sources.append("metrics.json")
    else:
        section.lead.append("No choice was confirmed on the test facts.")
    return section


def _curves(run: Run, curve: pl.DataFrame) -> Figure:
    removed = _removed(run, curve)
    panels = (
        Panel("restoration-fraction", curves.restoration(curve, "fraction", run.fraction), "By share of weights"),
        Panel(
            "restoration-norm",
            curves.restoration(curve, "removed_norm_share", removed),
            "By squared update removed (the matched comparison)",
        ),
    )
    rows = [
        (
            METHODS[row["method"]][0] if row["method"] in METHODS else row["method"],
            fraction(row["fraction"]),
            percent(row["removed_norm_share"]),
            percent_range(Interval(row["accuracy"], row["low"], row["high"])),
            percent(row["in_format"]),
        )
        for row in curve.iter_rows(named=True)
    ]
    columns = ("Method", "Weights", "Squared update removed", "Accuracy (95% interval)", "In format")
    return Figure(
        "Accuracy on validation facts, every method",
        _best(curve),
        panels,
        ("sweep/curve.parquet",),
        Table("Validation accuracy by method and fraction", columns, rows, frozenset(range(1, 5))),
    )


def _best(curve: pl.DataFrame) -> str:
    ranked = curve.filter(method="relative").sort("accuracy", "fraction", descending=[True, False])
    if not ranked.height:
        return "The relative ranking was not tried."
    best = ranked.row(0, named=True)
    start = curve.filter(fraction=0)
    at = f"{percent(best['accuracy'])} at {fraction(best['fraction'])}"
    if not start.height:
        return f"The relative ranking does best with {at}."
    tuned = start["accuracy"][0]
    if best["fraction"] == 0:
        return f"No fraction of the relative ranking does better than putting nothing back ({percent(tuned)})."
    return (
        f"The relative ranking does best with {at}; nothing put back gives {percent(tuned)}. The best point of a "
        "curve flatters: what counts is the test below."
    )


def _removed(run: Run, curve: pl.DataFrame) -> float | None:
    ranked = curve.filter(method="relative")
    if run.fraction is None or not ranked.height:
        return None
    return tables.at_fraction(ranked, run.fraction, "removed_norm_share")


def _form(run: Run, curve: pl.DataFrame) -> Figure:
    start = curve.filter(fraction=0)["in_format"]
    ranked = curve.filter(method="relative").sort("fraction")
    lost = ranked.filter(pl.col("in_format") < (start[0] if len(start) else 1) - COLLAPSE)
    if lost.height:
        row = lost.row(0, named=True)
        text = (
            f"From {fraction(row['fraction'])} on, the relative ranking also loses the answer format (to "
            f"{percent(row['in_format'], 0)}), so lower accuracy there is not lost knowledge alone."
        )
        if row["removed_norm_share"] >= UNDONE:
            text += " There every change is undone: it is the base model again."
    else:
        text = "The relative ranking keeps the answer format at every fraction tried."
    return Figure(
        "Answers in the trained format",
        text,
        (Panel("restoration-format", curves.answer_format(curve)),),
        ("sweep/curve.parquet",),
    )


def _confirmed(run: Run) -> Figure | None:
    change, against = run.restored, run.against_interpolation
    if change is None or run.fraction is None:
        return None
    compared = [("Restored − tuned", change)]
    if against is not None:
        compared.append(("Restored − interpolated", against))
    if run.interpolated is not None:
        compared.append(("Interpolated − tuned", run.interpolated))
    table = pl.DataFrame(
        [(name, item.value, item.low, item.high) for name, item in compared],
        schema=["comparison", "value", "low", "high"],
        orient="row",
    )
    stated = run.choice.get("validation_accuracy")
    chosen = f"Validation chose {fraction(run.fraction)}"
    chosen += f" (accuracy there {percent(stated)})." if stated is not None else "."
    said = [f"{name}: {points_range(item)}, {'resolved' if item.sign else 'not resolved'}" for name, item in compared]
    return Figure(
        "The choice, confirmed once on the test facts",
        f"{chosen} On the test facts: {'; '.join(said)}.",
        (Panel("confirmation", curves.differences(table)),),
        ("metrics.json", "sweep/choice.json"),
    )
