"""The restoration curve: accuracy as more of an update is taken back, beside its controls.

The paper restores the weights with the largest relative change (section 5). Whether *those* weights matter, or
only *how much* of the update goes, shows beside the controls: the same number of weights picked at random, by
the smallest base magnitude, or by the largest absolute change; and the whole update scaled down so that the
same squared norm is removed. Every model on the curve is made in memory and the tuned bits are put back after.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import polars as pl

from knowshift.facts.fact import Fact
from knowshift.files import digest_of, make_folder, write_parquet
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.measure.accuracy import evaluate
from knowshift.measure.statistics import headline, micro
from knowshift.models import digest, load_model, load_tokenizer
from knowshift.progress import bar
from knowshift.weights.scores import Arithmetic, Rank
from knowshift.weights.sweep import Info, Sweep

# Relative first: its removed norm is what the interpolation beside it is matched to.
METHODS = ("relative", "interpolate", "random", "base-magnitude", "absolute")
SETTINGS = ("method", "fraction", "alpha", "removed_norm_share")


class Curve:
    """Models between ``base`` and ``tuned``, evaluated in memory.

    Args:
        base, tuned: checkpoint folders.
        region, arithmetic: as in ``knowshift diff``.
        seed: of the random control and the intervals.
    """

    def __init__(
        self, base: Path, tuned: Path, *, region: str = "blocks", arithmetic: Arithmetic = "float32", seed: int = 0
    ) -> None:
        self._models = [digest(base), digest(tuned), region, arithmetic, seed]
        model = load_model(tuned)
        self._engine = TransformersEngine(model, load_tokenizer(tuned))
        self._sweep = Sweep(model, base, tuned, region=region, arithmetic=arithmetic, seed=seed)
        self._seed = seed

    def measure(
        self,
        facts: Sequence[Fact],
        levels: Mapping[str, int],
        out: Path,
        *,
        fractions: Sequence[float],
        max_new_tokens: int,
    ) -> pl.DataFrame:
        """Evaluate every method at every fraction; write ``answers.parquet`` and ``curve.parquet`` to ``out``.

        Each model's answers are a file of their own until the whole is written, so a killed sweep goes on.
        """
        key = digest_of([self._models, max_new_tokens, [[fact.to_json(), levels.get(fact.id)] for fact in facts]])
        parts = make_folder(out / "parts" / key)
        cells = [("relative", 0.0), *((method, fraction) for fraction in fractions for method in METHODS)]
        norms: dict[float, float] = {}
        with bar("restoring and asking", len(cells)) as advance:
            for method, fraction in cells:
                part = parts / f"{method}-{fraction:g}.parquet"
                if part.exists():
                    cell = pl.read_parquet(part)
                else:
                    share = norms.get(fraction, 0.0)
                    cell = self.answers(
                        method, fraction, facts, levels, removed_norm_share=share, max_new_tokens=max_new_tokens
                    )
                    write_parquet(part, cell)
                norms.setdefault(fraction, cell["removed_norm_share"][0])
                advance(1)
        answers = pl.concat([pl.read_parquet(parts / f"{method}-{fraction:g}.parquet") for method, fraction in cells])
        curve = self._summarise(answers)
        write_parquet(out / "answers.parquet", answers)
        write_parquet(out / "curve.parquet", curve)
        return curve

    def answers(
        self,
        method: str,
        fraction: float,
        facts: Sequence[Fact],
        levels: Mapping[str, int],
        *,
        removed_norm_share: float,
        max_new_tokens: int,
    ) -> pl.DataFrame:
        """The answers of one model of the curve, with the columns of ``SETTINGS``.

        A restoration is made by ``fraction``; an interpolation so that it removes ``removed_norm_share`` of the
        update's squared norm, as the restoration of ``fraction`` that it is the control of does.
        """
        with self._made(method, fraction, removed_norm_share) as made:
            table = evaluate(self._engine, facts, max_new_tokens=max_new_tokens, levels=levels)
        return table.with_columns(
            method=pl.lit(method),
            fraction=pl.lit(fraction),
            alpha=pl.lit(made.alpha, dtype=pl.Float64),
            removed_norm_share=pl.lit(made.removed_norm_share),
        )

    def _made(self, method: str, fraction: float, removed_norm_share: float) -> AbstractContextManager[Info]:
        if method == "interpolate":
            return self._sweep.interpolated(removed_share=removed_norm_share)
        return self._sweep.restored(cast(Rank, method), fraction)

    def _summarise(self, answers: pl.DataFrame) -> pl.DataFrame:
        start = answers.filter(pl.col("fraction") == 0)
        keys = answers.filter(pl.col("fraction") > 0).select("method", "fraction").unique(maintain_order=True)
        # With nothing restored every method is the tuned model.
        rows = [_point(start, method, 0.0, self._seed) for method in METHODS]
        for method, fraction in keys.iter_rows():
            cell = answers.filter((pl.col("method") == method) & (pl.col("fraction") == fraction))
            rows.append(_point(cell, method, fraction, self._seed))
        return pl.DataFrame(rows, infer_schema_length=None).sort("method", "fraction")


def choose(curve: pl.DataFrame, method: str = "relative") -> dict[str, Any]:
    """The fraction with the highest validation accuracy (the smallest among equals), and its matched control."""
    own = curve.filter((pl.col("method") == method) & (pl.col("fraction") > 0))
    best = own.sort("accuracy", "fraction", descending=[True, False]).row(0, named=True)
    tuned = curve.filter((pl.col("method") == method) & (pl.col("fraction") == 0)).row(0, named=True)
    matched = curve.filter((pl.col("method") == "interpolate") & (pl.col("fraction") == best["fraction"]))
    return {
        "method": method,
        "fraction": best["fraction"],
        "removed_norm_share": best["removed_norm_share"],
        "alpha": matched["alpha"][0],
        "validation_accuracy": best["accuracy"],
        "validation_accuracy_tuned": tuned["accuracy"],
        "validation_accuracy_interpolated": matched["accuracy"][0],
    }


def _point(cell: pl.DataFrame, method: str, fraction: float, seed: int) -> dict[str, Any]:
    estimate = micro(cell, seed=seed)
    return {
        "method": method,
        "fraction": fraction,
        "alpha": cell["alpha"][0] if fraction else (1.0 if method == "interpolate" else None),
        "removed_norm_share": cell["removed_norm_share"][0],
        "accuracy": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "accuracy_id": cell.filter(pl.col("domain") == "id")["contains"].mean(),
        "accuracy_ood": cell.filter(pl.col("domain") == "ood")["contains"].mean(),
        "accuracy_over_levels": headline(cell, seed=seed).value,
        "in_format": cell["in_format"].mean(),
    }
