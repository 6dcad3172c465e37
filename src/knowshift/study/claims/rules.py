"""How a verdict comes about: from effects with intervals, all of them turned so that more speaks for the claim.

A claim of several parts is supported only where every part is, each by its own 95 % interval (an intersection-union
test, which needs no correction for their number): where nothing is to be found, at most one study in forty is called
support by chance. Knows no tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, sqrt, tanh
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, spearmanr

from knowshift.measure.bootstrap import CONFIDENCE
from knowshift.report.words import Interval, percent_range, points_range
from knowshift.study.crossed import Crossed

Verdict = Literal["supported", "not supported", "not resolved"]
Unit = Literal["points", "nats", "ratio", "share", "correlation"]
FEWEST = 2  # seeds, without which nothing is known of other trainings
FEWEST_MODELS = 6  # of a correlation


@dataclass(frozen=True, slots=True)
class Part:
    """One effect that a claim stands on.

    Attributes:
        says: what the effect is, in words; the figure goes in place of `{}`.
        effect: the effect, turned so that more speaks for the claim.
        unit: of the effect.
        margin: the claim needs more than this.
        why: why there is no effect, or why it decides nothing; None if it decides.
    """

    says: str
    effect: Interval | None
    unit: Unit = "points"
    margin: float = 0.0
    why: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Supported if the whole interval is above the margin, not supported if it is below, else not resolved."""
        if self.effect is None or self.why is not None:
            return "not resolved"
        if self.effect.low > self.margin:
            return "supported"
        return "not supported" if self.effect.high < self.margin else "not resolved"

    @property
    def text(self) -> str:
        """The effect in words; without one, why."""
        return self.says.format(figure(self.effect, self.unit)) if self.effect else self.why or ""


def together(parts: Sequence[Part]) -> Verdict:
    """Supported if every part is; not supported if any is not; else not resolved."""
    found = {part.verdict for part in parts}
    if "not supported" in found:
        return "not supported"
    return "supported" if found == {"supported"} else "not resolved"


def weakest(parts: Sequence[Part]) -> Part:
    """The part that decides: the first of the worst verdict, and of these the one least above its margin."""
    order = ("not supported", "not resolved", "supported")

    def least(part: Part) -> tuple[int, float]:
        above = -np.inf if part.effect is None else part.effect.low - part.margin
        return order.index(part.verdict), above

    return min(parts, key=least)


def of_seeds(
    says: str,
    mean: Crossed | None,
    *,
    unit: Unit = "points",
    margin: float = 0.0,
    turned: bool = False,
    why: str | None,
) -> Part:
    """A part of a mean over seeds; one seed alone decides nothing.

    Args:
        mean: the effect.
        turned: whether less of it speaks for the claim.
        why: why there is none.
    """
    if mean is None:
        return Part(says, None, unit, margin, why or "nothing measured")
    low, high = (-mean.high, -mean.low) if turned else (mean.low, mean.high)
    effect = Interval(-mean.value if turned else mean.value, low, high)
    alone = None if mean.seeds >= FEWEST else "one seed alone says nothing of other trainings"
    return Part(says, effect, unit, margin, alone)


def inside(says: str, mean: Crossed | None, bounds: tuple[float, float], *, why: str | None) -> tuple[Part, Part]:
    """Two parts, which together say that a share is within ``bounds``."""
    low, high = bounds
    below = of_seeds(says, mean, unit="share", margin=low, why=why)
    if mean is None:
        return below, below
    turned = Crossed(high - mean.value, high - mean.high, high - mean.low, mean.spread, mean.seeds)
    return below, of_seeds(f"about is read as {low:.0%} to {high:.0%}", turned, unit="share", why=why)


def correlation(says: str, first: npt.ArrayLike, second: npt.ArrayLike, *, turned: bool = False) -> Part:
    """Spearman's rank correlation over models, with the interval of Bonett and Wright (2000).

    Args:
        first, second: one number a model, which is a mean over its seeds: models are what is counted.
        turned: whether a negative one speaks for the claim.
    """
    left, right = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if len(left) < FEWEST_MODELS:
        return Part(says, None, "correlation", why=f"{len(left)} models are too few for a correlation")
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return Part(says, None, "correlation", why="all models are alike")
    rank = float(np.clip(spearmanr(left, right).statistic, -0.999999, 0.999999)) * (-1 if turned else 1)
    leg = float(norm.ppf((1 + CONFIDENCE) / 2)) * sqrt((1 + rank**2 / 2) / (len(left) - 3))
    return Part(says, Interval(rank, tanh(atanh(rank) - leg), tanh(atanh(rank) + leg)), "correlation")


def figure(effect: Interval, unit: Unit) -> str:
    """An effect with its interval in words."""
    if unit == "points":
        return points_range(effect)
    if unit == "share":
        return percent_range(effect)
    suffix = {"nats": " nats", "ratio": " times"}.get(unit, "")
    value, low, high = (f"{round(number, 3) + 0.0:.3f}" for number in (effect.value, effect.low, effect.high))
    return f"{value}{suffix} ({low} to {high})"
