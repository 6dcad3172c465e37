"""The mean of a sample in strata, and what its interval is: a stratified percentile bootstrap. Takes numbers alone.

The plain bootstrap is too narrow where strata are small or hardly anything changed: a stratum of n has (n - 1) / n of
its variance, and one in which nothing changed has none. So each stratum's spread is widened by n / (n - 1) (Rao and Wu
1988), and half a value at either end of the scale, such as half a fact lost and half a fact gained, is shared out among
all strata (the pseudo-pairs of Bonett and Price 2012, at half their weight).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from knowshift.seeds import derive

RESAMPLES = 2000
CONFIDENCE = 0.95

# With so few distinct values (hit or miss; lost, same or gained) a resample is drawn as the counts of each
# value, which is the same distribution and needs no pass over the data.
FEW_VALUES = 4
BLOCK = 1 << 22
# Of values at either end of the scale, over all strata. Less covers too rarely where few facts changed, more too often
# (benchmarks/measure_coverage.py).
PSEUDO = 0.5

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
    ends: tuple[float, float] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The mean over groups of the mean over strata of the mean of ``values``, with a bootstrap interval.

    Resampling is within each stratum of each group, so the interval speaks of other facts of the same levels,
    not of another mix of levels. Percentile method, corrected for small strata and rare changes as above.

    Args:
        values: (n,) numbers, booleans included.
        strata: (n,) labels, such as levels; default one stratum.
        groups: (n,) labels, such as domains; default one group.
        ends: the least and the most that a value can be, where there are such; default 0 and 1 for booleans.
        seed: of the resampling; the same data under the same seed give the same interval.
        resamples: how many.
        confidence: of the interval.

    Raises:
        ValueError: without values, or if lengths differ.
    """
    if ends is None and _boolean(values):
        ends = 0.0, 1.0
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"a mean needs a row of values, got the shape {numbers.shape}")
    group, stratum = _codes(groups, len(numbers)), _codes(strata, len(numbers))
    cells = []
    for code in np.unique(group):
        inside = group == code
        cells.append([numbers[inside & (stratum == own)] for own in np.unique(stratum[inside])])
    pseudo = 0.0 if ends is None else PSEUDO / sum(map(len, cells))
    generator = np.random.default_rng(derive(seed, "bootstrap"))
    value, drawn = 0.0, np.zeros(resamples)
    for own_cells in cells:
        weight = 1.0 / (len(cells) * len(own_cells))
        for cell in own_cells:
            value += weight * float(cell.mean())
            drawn += weight * _resampled_means(cell, ends or (0.0, 0.0), pseudo, resamples, generator)
    if ends is not None:
        drawn = drawn.clip(*ends)
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
    ends = (-1.0, 1.0) if _boolean(before) and _boolean(after) else None
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"pairs are needed, got {first.shape} and {second.shape}")
    return bootstrap_mean(
        second - first, strata, groups, ends=ends, seed=seed, resamples=resamples, confidence=confidence
    )


def _codes(labels: npt.ArrayLike | None, length: int) -> npt.NDArray[np.intp]:
    if labels is None:
        return np.zeros(length, np.intp)
    array: npt.NDArray[Any] = np.asarray(labels)
    if array.shape != (length,):
        raise ValueError(f"{length} values with labels of the shape {array.shape}")
    return np.unique(array, return_inverse=True)[1]


def _boolean(values: npt.ArrayLike) -> bool:
    return bool(np.asarray(values).dtype == np.bool_)


def _resampled_means(
    values: Floats, ends: tuple[float, float], pseudo: float, resamples: int, generator: np.random.Generator
) -> Floats:
    """(resamples,) means of samples of the same size drawn with replacement, their spread widened for small samples.

    They are drawn from ``values``, of which each weighs 1, and ``ends``, of which each weighs ``pseudo``.
    """
    size = len(values)
    total = size + 2 * pseudo
    centre = (values.sum() + pseudo * sum(ends)) / total
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= FEW_VALUES:
        chances = np.array([*counts, pseudo, pseudo]) / total
        means: Floats = generator.multinomial(size, chances, size=resamples) @ np.array([*distinct, *ends]) / size
    else:
        means = np.empty(resamples)
        rows = max(1, BLOCK // size)
        for start in range(0, resamples, rows):
            stop = min(start + rows, resamples)
            taken = values[generator.integers(size, size=(stop - start, size))]
            if pseudo:
                place = generator.random(taken.shape) * total
                taken = np.where(place < size, taken, np.where(place < size + pseudo, *ends))
            means[start:stop] = taken.mean(axis=1)
    if size == 1:  # no second value tells its spread
        return means
    widened: Floats = centre + (means - centre) * np.sqrt(size / (size - 1))
    return widened


def _interval(value: float, drawn: Floats, confidence: float) -> Estimate:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    # What was drawn lies about a mean nearer the middle of the scale; near its end the value may be beyond all of it.
    return Estimate(value, min(float(low), value), max(float(high), value))
