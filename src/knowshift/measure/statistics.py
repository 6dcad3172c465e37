"""Intervals and tests: stratified percentile bootstrap, Wilson, exact McNemar; the headline accuracy.

The mean that is resampled is the paper's headline figure (section 3): within a group (a domain) every stratum
(a mastery level) counts the same, and so does every group. Knows nothing of models.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import binomtest, norm

from knowshift.measure.pairs import pair
from knowshift.measure.strata import with_strata
from knowshift.seeds import derive

Match = Literal["contains", "strict"]
MATCHERS: tuple[Match, ...] = ("contains", "strict")

RESAMPLES = 2000
CONFIDENCE = 0.95

# With so few distinct values (hit or miss; lost, same or gained) a resample is drawn as the counts of each
# value, which is the same distribution and needs no pass over the data.
FEW_VALUES = 4
BLOCK = 1 << 22

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its confidence interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """The three numbers by name."""
        return asdict(self)


def bootstrap_mean(
    values: npt.ArrayLike,
    strata: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The mean over groups of the mean over strata of the mean of ``values``, with a bootstrap interval.

    Resampling is within each stratum of each group, so the interval speaks of other facts of the same levels,
    not of another mix of levels. Percentile method.

    Args:
        values: (n,) numbers, booleans included.
        strata: (n,) labels, such as levels; default one stratum.
        groups: (n,) labels, such as domains; default one group.
        seed: of the resampling; the same data under the same seed give the same interval.
        resamples: how many.
        confidence: of the interval.

    Raises:
        ValueError: without values, or if lengths differ.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"a mean needs a row of values, got the shape {numbers.shape}")
    group, stratum = _codes(groups, len(numbers)), _codes(strata, len(numbers))
    generator = np.random.default_rng(derive(seed, "bootstrap"))
    value, drawn = 0.0, np.zeros(resamples)
    group_codes = np.unique(group)
    for code in group_codes:
        inside = group == code
        codes = np.unique(stratum[inside])
        weight = 1.0 / (len(group_codes) * len(codes))
        for own in codes:
            cell = numbers[inside & (stratum == own)]
            value += weight * float(cell.mean())
            drawn += weight * _resampled_means(cell, resamples, generator)
    return _interval(value, drawn, confidence)


def paired_difference(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    strata: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """``after`` minus ``before`` on the same items: difference of the means that ``bootstrap_mean`` takes.

    Items are resampled as pairs, so what both sides share does not widen the interval.

    Raises:
        ValueError: without values, or if lengths differ.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"pairs are needed, got {first.shape} and {second.shape}")
    return bootstrap_mean(second - first, strata, groups, seed=seed, resamples=resamples, confidence=confidence)


def wilson(hits: int, trials: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """A proportion with Wilson's score interval, which is sound for few trials and near 0 and 1.

    Raises:
        ValueError: without trials.
    """
    if trials < 1 or not 0 <= hits <= trials:
        raise ValueError(f"not a proportion: {hits} of {trials}")
    share = hits / trials
    z = float(norm.ppf(0.5 + confidence / 2))
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * float(np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)))
    # At the ends the bound is the share itself; rounding must not put the share outside its interval.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == trials else min(1.0, centre + half)
    return Estimate(share, low, high)


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test: were losses and gains as likely? 1 if nothing changed."""
    changed = lost + gained
    return float(binomtest(lost, changed, 0.5).pvalue) if changed else 1.0


def headline(
    answers: pl.DataFrame, match: Match = "contains", *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Mean over domains of the unweighted mean over levels, with a stratified 95 % bootstrap interval.

    Args:
        answers: a table of answers, of which domain, level and the matcher's column are read. In a domain
            where no fact has a level, the mean is the plain one.
        match: the matcher.
        seed: of the resampling.
        resamples: how many.
    """
    table = with_strata(answers)
    return bootstrap_mean(table[match].to_numpy(), table["stratum"], table["domain"], seed=seed, resamples=resamples)


def headline_difference(
    before: pl.DataFrame,
    after: pl.DataFrame,
    match: Match = "contains",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Headline of ``after`` minus that of ``before`` on the same facts, by a paired stratified bootstrap.

    Args:
        before: a table of answers, of which id, domain, level and the matcher's column are read. Filtered to
            one domain, it gives that domain's difference of means over levels.
        after: answers to the same facts.
        match: the matcher.
        seed: of the resampling.
        resamples: how many.

    Raises:
        InputError: if the two tables do not hold the same facts.
    """
    table = with_strata(pair(before, after, (match,)))
    old, new = table[f"{match}_before"].to_numpy(), table[f"{match}_after"].to_numpy()
    return paired_difference(old, new, table["stratum"], table["domain"], seed=seed, resamples=resamples)


def micro(answers: pl.DataFrame, match: Match = "contains", *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Mean over domains of the share of all facts answered, with a 95 % bootstrap interval.

    Every fact of a domain counts the same, so unlike in ``headline`` a level of two or three facts cannot decide
    the figure.

    Args:
        answers: a table of answers, of which domain and the matcher's column are read.
        match: the matcher.
        seed: of the resampling.
        resamples: how many.
    """
    return bootstrap_mean(answers[match].to_numpy(), groups=answers["domain"], seed=seed, resamples=resamples)


def micro_difference(
    before: pl.DataFrame,
    after: pl.DataFrame,
    match: Match = "contains",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """``micro`` of ``after`` minus that of ``before`` on the same facts, by a paired bootstrap.

    Raises:
        InputError: if the two tables do not hold the same facts.
    """
    table = pair(before, after, (match,))
    old, new = table[f"{match}_before"].to_numpy(), table[f"{match}_after"].to_numpy()
    return paired_difference(old, new, groups=table["domain"], seed=seed, resamples=resamples)


def _codes(labels: npt.ArrayLike | None, length: int) -> npt.NDArray[np.intp]:
    if labels is None:
        return np.zeros(length, np.intp)
    array: npt.NDArray[Any] = np.asarray(labels)
    if array.shape != (length,):
        raise ValueError(f"{length} values with labels of the shape {array.shape}")
    return np.unique(array, return_inverse=True)[1]


def _resampled_means(values: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """(resamples,) means of samples of the same size drawn from ``values`` with replacement."""
    size = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= FEW_VALUES:
        drawn = generator.multinomial(size, counts / size, size=resamples)
        means: Floats = drawn @ distinct / size
        return means
    means = np.empty(resamples)
    rows = max(1, BLOCK // size)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        means[start:stop] = values[generator.integers(size, size=(stop - start, size))].mean(axis=1)
    return means


def _interval(value: float, drawn: Floats, confidence: float) -> Estimate:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))
