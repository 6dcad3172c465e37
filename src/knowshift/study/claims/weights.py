"""The paper's claims of where the change in weights is (section 5), each against what no training would give.

A model is one number, so intervals are over seeds alone: the mean over levels and sizes of each seed.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from knowshift.report.words import percent
from knowshift.study.claims.claim import Claim
from knowshift.study.claims.contrasts import plain
from knowshift.study.claims.rules import Part, inside, of_seeds
from knowshift.study.crossed import Crossed, over_seeds
from knowshift.study.measures import Measures
from knowshift.study.tables.table import EXACT, Config, configs
from knowshift.study.tables.weights import shares

TOP = 0.01
# "About 70 %".
ABOUT = (0.65, 0.75)
# Less than this beyond what no training gives is nothing that a reader would call concentrated by training.
EXCESS = 0.05
# So much more than its share of the parameters is enriched.
ENRICHED = 1.05
FRACTIONS = (0.2, 0.1, 0.05)  # the paper's tables are of the first
FEED_FORWARD = ("gate", "up", "gate_up", "down", "router")
_OTHERS = "mlp|ffn|feed_forward|experts"  # modules that keep a tensor's own name


def concentration(measures: Measures, model: str) -> Claim:
    """The top 1 % holds about 70 % of the summed relative change, and more than it does without any training.

    Supported where the share is within 65 and 75 % and exceeds its null by more than 5 points. The null has the same
    weights and independent noise, so a share that does not exceed it is arithmetic, not training.
    """
    claim = "Training concentrates its change: the top 1 % of the weights hold about 70 % of it."
    table = measures.concentration
    top = table.filter((pl.col("fraction") - TOP).abs() < EXACT, model=model) if table.height else table
    if top.is_empty():
        return _claim("concentration", claim, model, [of_seeds("", None, why="no weights were compared")], [])
    share, lacking = _mean(measures, model, dict(top.select("key", "share").iter_rows()))
    null, _ = _mean(measures, model, dict(top.select("key", "null_share").iter_rows()))
    excess, _ = _mean(measures, model, dict(top.select("key", pl.col("share") - pl.col("null_share")).iter_rows()))
    said = "" if null is None else f" (without training {null.value:.1%})"
    parts = [
        *inside("the top 1 % hold {}" + said, share, ABOUT, why=lacking),
        of_seeds("beyond the same weights without training: {}", excess, margin=EXCESS, why=lacking),
    ]
    return _claim("concentration", claim, model, parts, [lacking], {"fraction": TOP})


def feed_forward(measures: Measures, model: str) -> Claim:
    """Feed-forward parts hold more of the restored weights than of all weights, by more than a twentieth."""
    claim = "The most changed weights lie in the feed-forward parts more often than their size explains."
    table = measures.modules
    own = table.filter(model=model) if table.height else table
    known = [] if own.is_empty() else sorted(set(own["fraction"]))
    fraction = next((one for wanted in FRACTIONS for one in known if abs(one - wanted) < EXACT), None)
    fraction = known[-1] if fraction is None and known else fraction
    if fraction is None:
        return _claim("ffn", claim, model, [of_seeds("", None, why="no weights were compared")], [], table="modules")
    inside_blocks = own.filter(pl.col("layer").is_not_null(), pl.col("fraction") == fraction)
    kind = pl.col("module").str.split(".").list.last().is_in(FEED_FORWARD) | pl.col("module").str.contains(_OTHERS)
    parts = shares(inside_blocks, kind).filter("place")
    enriched, lacking = _mean(measures, model, dict(parts.select("key", "enrichment").iter_rows()))
    restored, all_ = parts.select(pl.col("restored_share", "parameter_share").mean()).row(0)
    raw = f"{percent(restored)} of the restored weights, {percent(all_)} of all"
    says = f"feed-forward parts hold {raw}: enriched {{}}"
    part = of_seeds(says, enriched, unit="ratio", margin=ENRICHED, why=lacking)
    rows = {"fraction": fraction, "module": list(FEED_FORWARD)}
    return _claim("ffn", claim, model, [part], [lacking], rows, table="modules")


def _mean(measures: Measures, model: str, values: Mapping[str, float]) -> tuple[Crossed | None, str | None]:
    """Mean over configurations and seeds, of the seeds for which every configuration is done; what is lacking."""
    own: list[Config] = configs(measures.index, "diff", lacking=False, model=model, method=plain(measures, model))
    seeds = {cell["seed"] for one in own for cell in one.cells}
    each = [{seed: values[key] for seed, key in one.seeds.items() if key in values} for one in own]
    common = sorted(set.intersection(*map(set, each)), key=str) if each else []
    said = f"{len(common)} of {len(seeds)} seeds have all of these models"
    if not common:
        return None, said
    means = [sum(found[seed] for found in each) / len(each) for seed in common]
    return over_seeds(means), said if len(common) < len(seeds) else None


def _claim(
    name: str,
    claim: str,
    model: str,
    parts: Sequence[Part],
    limits: Sequence[str | None],
    rows: Mapping[str, object] | None = None,
    *,
    table: str = "concentration",
) -> Claim:
    return Claim(name, claim, model, parts, table, {"model": model, **(rows or {})}, [one for one in limits if one])
