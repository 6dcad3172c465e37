"""What training changed in the weights: how much, where, and how concentrated.

Joins reading, ranking and tables; the figures follow the paper's section 5, each beside its control.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from knowshift.errors import InputError
from knowshift.files import make_folder, write_json, write_parquet
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.null import null_histogram, shares
from knowshift.weights.pairing import Pair, pair
from knowshift.weights.ranking import Energies, Ranking, exact, spelled
from knowshift.weights.scores import Arithmetic, Rank, Rule, key_score
from knowshift.weights.taken import Taken, take
from knowshift.weights.walk import one_bar

PAPER_FRACTIONS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.4, 0.6)
# A smooth curve from one in ten thousand to all, in figures that can be typed.
CURVE = tuple(float(f"{fraction:.3g}") for fraction in np.geomspace(1e-4, 1.0, 61))

_MODULE_ORDER = ("q", "k", "v", "qkv", "o", "gate", "up", "gate_up", "down", "router")


@dataclass(frozen=True, slots=True)
class Diff:
    """The comparison of two checkpoints.

    Attributes:
        concentration: fraction, count, share (of the summed change held by the top fraction), null_share (the
            same without training), energy_share (of the squared update that restoring it removes), paper
            (whether it is one of the asked fractions rather than a point of the curve).
        modules: layer (null outside of blocks), module, parameters, changed, and for each asked fraction
            restored_share_<f> (this row's part of the restored elements) and enrichment_<f> (that, divided by
            its part of the parameters).
        metrics: parameters, changed, changed_share, thresholds and the settings.
        matrices: norms, cosine and ranks of each matrix where asked for, see ``matrices``.
    """

    concentration: pl.DataFrame
    modules: pl.DataFrame
    metrics: dict[str, Any]
    matrices: pl.DataFrame | None = None

    def write(self, out: Path) -> None:
        """Write the tables as Parquet and ``metrics.json`` into ``out``."""
        make_folder(out)
        for name in ("concentration", "modules", "matrices"):
            if (table := getattr(self, name)) is not None:
                write_parquet(out / f"{name}.parquet", table)
        write_json(out / "metrics.json", self.metrics)


def diff(
    base: Path,
    tuned: Path,
    *,
    region: str = "blocks",
    arithmetic: Arithmetic = "float32",
    rank: Rank = "relative",
    fractions: Sequence[float | str] = PAPER_FRACTIONS,
    seed: int = 0,
    matrices: bool = False,
) -> Diff:
    """Compare two checkpoint folders.

    Args:
        base, tuned: checkpoint folders of one architecture.
        region: which tensors, see ``regions``.
        arithmetic: of the scores, see ``scores.Rule``.
        rank: ``relative`` or ``absolute``: by which change elements are ranked and summed.
        fractions: the fractions to report per module, beside the curve.
        seed: of the no-training null.
        matrices: also compare matrix by matrix, which takes many times as long.

    Raises:
        InputError: if the checkpoints cannot be read, do not belong together or hold NaN.
    """
    if rank not in ("relative", "absolute"):
        raise InputError(f"--rank {rank}: a diff is of changes: relative or absolute")
    pairs, notes = pair(Checkpoint.open(base), Checkpoint.open(tuned), region)
    rule = Rule(rank=rank, arithmetic=arithmetic, seed=seed)
    asked = {exact(fraction): spelled(fraction) for fraction in fractions}
    points = sorted({*asked, *map(exact, CURVE)})
    walks = 3 if rule.coarse else 4
    with one_bar("comparing", sum(entry.size for entry in pairs), walks + matrices):
        ranking = Ranking(pairs, rule, walks=walks)
        taken = dict(zip(points, take(ranking, ranking.cuts(points), places=False), strict=True))
        null = shares(null_histogram(ranking), np.array([entry.cut.count for entry in taken.values()]))
        table = _by_matrix(pairs) if matrices else None
    shown = {label: taken[fraction] for fraction, label in asked.items()}
    metrics = {
        "parameters": ranking.elements,
        "changed": int(ranking.changed.sum()),
        "changed_share": int(ranking.changed.sum()) / ranking.elements,
        "region": region,
        "arithmetic": arithmetic,
        "rank": rank,
        "seed": seed,
        "thresholds": {
            label: key_score(chosen.cut.threshold, ranking.rule) if chosen.cut.count else None
            for label, chosen in shown.items()
        },
        "counts": {label: chosen.cut.count for label, chosen in shown.items()},
        "update_norm": sqrt(float(ranking.energy.sum())),
        "nonfinite": 0,  # a checkpoint with any in this region is refused
        "warnings": notes + _warnings(ranking, asked),
    }
    return Diff(_concentration(ranking, taken, null, set(asked)), _modules(ranking, shown), metrics, table)


def _by_matrix(pairs: Sequence[Pair]) -> pl.DataFrame:
    from knowshift.weights.matrices import matrices

    return matrices(pairs)


def _warnings(ranking: Ranking, asked: dict[Fraction, str]) -> list[str]:
    changed = int(ranking.changed.sum())
    if not changed:
        return ["the two models are identical in this region"]
    beyond = [label for fraction, label in asked.items() if ranking.count(fraction) > changed]
    if not beyond:
        return []
    return [
        f"only {changed / ranking.elements:.2%} of the elements changed: to restore {' or '.join(beyond)} takes all of "
        "them and unchanged elements besides"
    ]


def _concentration(
    ranking: Ranking, taken: dict[Fraction, Taken], null: Energies, asked: set[Fraction]
) -> pl.DataFrame:
    counts = np.array([entry.cut.count for entry in taken.values()])
    total = float(ranking.histogram.sums.sum())
    energy = float(ranking.energy.sum())
    return pl.DataFrame(
        {
            "fraction": [float(fraction) for fraction in taken],
            "count": counts,
            "share": [min(entry.cut.held / total, 1.0) if total else 0.0 for entry in taken.values()],
            "null_share": null,
            "energy_share": [min(entry.energy / energy, 1.0) if energy else 0.0 for entry in taken.values()],
            "paper": [fraction in asked for fraction in taken],
        }
    )


def _modules(ranking: Ranking, shown: dict[str, Taken]) -> pl.DataFrame:
    rows: dict[tuple[int | None, str], list[int]] = {}
    for number, entry in enumerate(ranking.pairs):
        rows.setdefault((entry.place.layer, entry.place.module), []).append(number)
    places = sorted(rows, key=_place_order)
    sizes = np.array([entry.size for entry in ranking.pairs], np.int64)
    parameters = np.array([sizes[rows[place]].sum() for place in places])
    columns: dict[str, Any] = {
        "layer": pl.Series([layer for layer, _ in places], dtype=pl.Int64),
        "module": [module for _, module in places],
        "parameters": parameters,
        "changed": [int(ranking.changed[rows[place]].sum()) for place in places],
    }
    for label, chosen in shown.items():
        part = np.array([chosen.counts[rows[place]].sum() for place in places]) / max(chosen.cut.count, 1)
        columns[f"restored_share_{label}"] = part
        columns[f"enrichment_{label}"] = part / np.maximum(parameters, 1) * ranking.elements
    return pl.DataFrame(columns)


def _place_order(place: tuple[int | None, str]) -> tuple[bool, int, int, str]:
    layer, module = place
    order = _MODULE_ORDER.index(module) if module in _MODULE_ORDER else len(_MODULE_ORDER)
    return layer is None, layer or 0, order, module
