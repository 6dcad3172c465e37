"""From a run's tables to the small tables that charts and sentences show.

Takes and gives polars tables; knows nothing of files, charts or pages.
"""

from collections.abc import Mapping

import polars as pl

from knowshift.mastery.levels import LEVELS
from knowshift.measure.statistics import bootstrap_mean, micro_difference, wilson
from knowshift.report.theme import CHANGES
from knowshift.report.words import Interval
from knowshift.seeds import derive

# Below this share of a bar its number would not fit inside.
READABLE = 0.05
# With fewer facts in a level, resampling them says little about other facts of that level.
FEW = 10


def level_counts(mastery: pl.DataFrame) -> pl.DataFrame:
    """Facts per domain and level, empty levels included: domain, level, facts."""
    domains = mastery.select("domain").unique().sort("domain")
    grid = domains.join(pl.DataFrame({"level": list(LEVELS)}, schema={"level": pl.Int64}), how="cross")
    counted = mastery.group_by("domain", pl.col("level").cast(pl.Int64)).agg(facts=pl.len())
    return grid.join(counted, on=["domain", "level"], how="left").with_columns(
        pl.col("facts").fill_null(0).cast(pl.Int64)
    )


def examples(mastery: pl.DataFrame, seed: int, per_level: int = 5) -> pl.DataFrame:
    """A few facts of each level, of different topics where there are enough, drawn by the run's seed."""
    draws = pl.Series("draw", [derive(seed, "example", name) for name in mastery["id"]], dtype=pl.UInt64)
    shuffled = mastery.with_columns(draws).sort("level", "draw")
    turn = pl.col("id").cum_count().over("level", "topic").alias("turn")
    return (shuffled.with_columns(turn).sort("level", "turn", "draw").group_by("level", maintain_order=True)).head(
        per_level
    )


def accuracy_by_level(answers: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Share of facts answered, with Wilson intervals: model, domain, level, facts, value, low, high."""
    rows = []
    for model, table in answers.items():
        scored = table.drop_nulls("level")
        counted = scored.group_by("domain", pl.col("level").cast(pl.Int64)).agg(
            facts=pl.len(), hits=pl.col("contains").sum()
        )
        for domain, level, facts, hits in counted.sort("domain", "level").iter_rows():
            estimate = wilson(hits, facts)
            rows.append((model, domain, level, facts, hits / facts, estimate.low, estimate.high))
    return pl.DataFrame(rows, schema=_FIGURES, orient="row")


def drift_by_level(drifts: Mapping[str, pl.DataFrame], seed: int) -> pl.DataFrame:
    """Mean KL(tuned || base) with a bootstrap interval: model, domain, level, facts, value, low, high."""
    rows = []
    for model, table in drifts.items():
        parts = table.drop_nulls("level").partition_by("domain", "level", as_dict=True)
        for (domain, level), part in sorted(parts.items()):
            estimate = bootstrap_mean(part["kl_tuned_base"].to_numpy(), seed=seed)
            rows.append((model, domain, level, part.height, estimate.value, estimate.low, estimate.high))
    return pl.DataFrame(rows, schema=_FIGURES, orient="row")


def change_counts(transitions: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Facts by model, domain and change, with their place in a stacked bar: share, middle, shown."""
    rows = []
    for model, table in transitions.items():
        for (domain,), part in sorted(table.partition_by("domain", as_dict=True).items()):
            left = 0.0
            for change in CHANGES:
                facts = part.filter(change=change).height
                share = facts / part.height
                shown = f"{facts:,}" if share >= READABLE else ""
                rows.append((model, domain, change, facts, share, left + share / 2, shown))
                left += share
    names = ["model", "domain", "change", "facts", "share", "middle", "shown"]
    return pl.DataFrame(rows, schema=names, orient="row")


def changed_facts(transitions: Mapping[str, pl.DataFrame], limit: int) -> tuple[pl.DataFrame, bool]:
    """The facts lost and gained by each model, at most ``limit`` a model and change, and whether that cut any."""
    shown, cut = [], False
    for model, table in transitions.items():
        for change in ("lost", "gained"):
            part = table.filter(change=change).sort("domain", "topic", "question")
            cut = cut or part.height > limit
            shown.append(part.head(limit).with_columns(model=pl.lit(model)))
    return pl.concat(shown), cut


def given_back(tuned: pl.DataFrame, restored: pl.DataFrame) -> tuple[int, int]:
    """Of the facts the tuned model lost, how many the restored one knows; and how many it newly lost."""
    both = tuned.select("id", "change").join(restored.select("id", then="change"), on="id")
    returned = both.filter((pl.col("change") == "lost") & (pl.col("then") == "kept")).height
    newly = both.filter((pl.col("change") == "kept") & (pl.col("then") == "lost")).height
    return returned, newly


def enrichment(modules: pl.DataFrame, fraction: float) -> tuple[float, pl.DataFrame] | None:
    """Enrichment at the fraction of the table nearest to ``fraction``: layer, module, parameters, enrichment, log2.

    Rows outside the layers (embeddings) are left out. ``log2`` is clipped to -2..2.
    """
    prefix = "enrichment_"
    known = {float(name.removeprefix(prefix)): name for name in modules.columns if name.startswith(prefix)}
    inside = modules.drop_nulls("layer").sort("layer", maintain_order=True)
    if not known or not inside.height:
        return None
    nearest = min(known, key=lambda value: abs(value - fraction))
    value = pl.col(known[nearest])
    return nearest, inside.select("layer", "module", "parameters", enrichment=value, log2=value.log(2).clip(-2, 2))


def paired(
    before: pl.DataFrame | None, after: pl.DataFrame | None, seed: int, domain: str | None = None
) -> Interval | None:
    """Paired difference in the share of facts answered, after less before: of one domain, or the domains' mean."""
    if before is None or after is None:
        return None
    if domain is not None:
        before, after = before.filter(domain=domain), after.filter(domain=domain)
    if not before.height or not after.height:
        return None
    estimate = micro_difference(before, after, seed=seed)
    return Interval(estimate.value, estimate.low, estimate.high)


def thin_cells(answers: pl.DataFrame) -> pl.DataFrame:
    """Levels of a domain with so few facts that each weighs heavily in the mean over levels: level, domain, facts."""
    counted = answers.drop_nulls("level").group_by("level", "domain").agg(facts=pl.len())
    return counted.filter(pl.col("facts") < FEW).sort("level", "domain")


def mean(table: pl.DataFrame, column: str) -> float:
    """A column's mean; a column of truth values counts as 0 and 1."""
    return float(table.select(pl.col(column).cast(pl.Float64).mean()).item())


def at_fraction(curve: pl.DataFrame, fraction: float, column: str) -> float:
    """The curve's value at the listed fraction nearest to ``fraction``."""
    nearest = curve.sort((pl.col("fraction") - fraction).abs()).row(0, named=True)
    return float(nearest[column])


_FIGURES = {
    "model": pl.String,
    "domain": pl.String,
    "level": pl.Int64,
    "facts": pl.Int64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}
