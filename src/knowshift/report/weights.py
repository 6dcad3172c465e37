"""The section about weights: concentration beside its null, squared update, layers and modules."""

from collections.abc import Iterable

import polars as pl

from knowshift.files import read_json
from knowshift.report import commands, curves, tables
from knowshift.report.blocks import Figure, Panel, Section, Table
from knowshift.report.data import CONCENTRATION, MODULES, Run
from knowshift.report.theme import model_colours
from knowshift.report.words import count, fraction, listing, percent

# A null that alone reaches this share in the top 1 % leaves a measured share nothing to say.
SATURATED = 0.9
# Where no fraction was chosen: the paper's.
FRACTION = 0.2


def concentration(run: Run) -> Section:
    """Which weights changed, and how unevenly."""
    section = Section("weights", "Which weights changed", commands=commands.diff(run))
    found = _tables(run, "concentration", CONCENTRATION)
    if not found:
        section.lead.append("The weights were not compared in this run.")
        return section
    section.lead.append(_changed(run))
    section.lead.append(
        "Relative change is |tuned − base| / |base|, so the smallest base weights rank highest whatever moved "
        "them. Read a share against its null, never alone: the null is noise of the same size on the same "
        "weights, with no training."
    )
    section.lead.extend(_warnings(run, found))
    section.blocks.extend([_concentration(run, found), _energy(run, found)])
    modules = _tables(run, "modules", MODULES)
    heat = _enrichment(run, modules) if modules else None
    if heat:
        section.blocks.append(heat)
    section.sources.extend(f"diff/{name}/{part}.parquet" for part in ("concentration", "modules") for name in found)
    return section


def _warnings(run: Run, names: Iterable[str]) -> list[str]:
    """What ``diff`` warned of."""
    warned = []
    for name in names:
        path = run.folder / f"diff/{name}/metrics.json"
        stated = read_json(path).get("warnings", []) if path.exists() else []
        warned += [f"For {run.phrase(name)}: {warning}." for warning in stated]
    return warned


def _tables(run: Run, part: str, columns: tuple[str, ...]) -> dict[str, pl.DataFrame]:
    found = {model.name: run.table(f"diff/{model.name}/{part}.parquet", columns) for model in run.tuned}
    return {name: table for name, table in found.items() if table is not None}


def _changed(run: Run) -> str:
    stated = run.metrics.get("concentration", {})
    said = [
        f"{percent(entry['changed_share'])} of the weights in {run.phrase(name)}"
        for name, entry in stated.items()
        if entry.get("changed_share") is not None
    ]
    return f"Stored bits differ from the base in {listing(said)}." if said else ""


def _concentration(run: Run, found: dict[str, pl.DataFrame]) -> Figure:
    colours = dict(zip(found, model_colours(list(found)), strict=True))
    panels = tuple(
        Panel(
            f"concentration-{name}",
            curves.concentration(curve, run.label(name), colours[name]),
            run.label(name) if len(found) > 1 else "",
        )
        for name, curve in found.items()
    )
    curve = found[run.main.name] if run.main.name in found else next(iter(found.values()))
    share, null = (tables.at_fraction(curve, 0.01, column) for column in ("share", "null_share"))
    text = (
        f"The most changed 1% of weights hold {percent(share)} of the summed relative change; "
        f"without any training they would hold {percent(null)}."
    )
    if null > SATURATED:
        text += (
            " Here the null alone is nearly everything: base weights that are exactly zero or on a coarse lattice "
            "make any change to them look huge, so this curve says nothing about training."
        )
    rows = [
        (run.label(name), fraction(row["fraction"]), *(percent(row[column]) for column in CONCENTRATION[1:]))
        for name, table in found.items()
        for row in _listed(table).iter_rows(named=True)
    ]
    listed = Table(
        "Shares held by the most changed weights",
        ("Model", "Weights", "Summed relative change", "Its no-training null", "Squared update"),
        rows,
        frozenset(range(1, 5)),
    )
    sources = tuple(f"diff/{name}/concentration.parquet" for name in found)
    return Figure("Concentration of the relative change, beside its null", text, panels, sources, listed)


def _listed(curve: pl.DataFrame) -> pl.DataFrame:
    return curve.filter("paper") if "paper" in curve.columns else curve


def _energy(run: Run, found: dict[str, pl.DataFrame]) -> Figure:
    at = run.fraction or FRACTION
    table = pl.concat(curve.select("fraction", "energy_share", model=pl.lit(name)) for name, curve in found.items())
    said = [
        f"{percent(tables.at_fraction(curve, at, 'energy_share'))} of the squared update of {run.phrase(name)}"
        for name, curve in found.items()
    ]
    labels = {name: run.label(name) for name in found}
    return Figure(
        "How much of the update a fraction removes",
        f"Putting back the most changed {fraction(at)} removes {listing(said)}.",
        (Panel("energy", curves.energy(table, labels)),),
        tuple(f"diff/{name}/concentration.parquet" for name in found),
    )


def _enrichment(run: Run, modules: dict[str, pl.DataFrame]) -> Figure | None:
    found = {
        name: part for name, table in modules.items() if (part := tables.enrichment(table, run.fraction or FRACTION))
    }
    if not found:
        return None
    panels = tuple(
        Panel(
            f"enrichment-{name}",
            curves.enrichment(table, run.label(name)),
            run.label(name) if len(found) > 1 else "",
        )
        for name, (_, table) in found.items()
    )
    name = run.main.name if run.main.name in found else next(iter(found))
    at, table = found[name]
    total = pl.col("parameters").sum()
    by_module = (
        table.group_by("module", maintain_order=True)
        .agg(
            parameters=total,
            enrichment=(pl.col("enrichment") * pl.col("parameters")).sum() / total,
        )
        .sort("enrichment", descending=True)
    )
    most, least = by_module.row(0, named=True), by_module.row(-1, named=True)
    text = (
        f"Of the {fraction(at)} put back in {run.phrase(name)}, the module {most['module']} is the most "
        f"over-represented ({most['enrichment']:.2f} times their share of the parameters), {least['module']} the "
        f"least ({least['enrichment']:.2f} times). 1× means: exactly its share."
    )
    rows = [
        (row["module"], count(row["parameters"]), f"{row['enrichment']:.2f}×")
        for row in by_module.iter_rows(named=True)
    ]
    listed = Table(
        f"Enrichment by module, all layers, {run.label(name)}",
        ("Module", "Parameters", "Enrichment"),
        rows,
        frozenset({1, 2}),
    )
    sources = tuple(f"diff/{name}/modules.parquet" for name in found)
    return Figure("Where the restored weights are: layer by module", text, panels, sources, listed)
