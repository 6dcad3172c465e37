"""The mean over facts and seeds, with an interval over both: other facts of the same levels, and other trainings.

Facts are resampled within their strata as in ``measure.bootstrap``, with the same corrections, the means of all
trainings together. What trainings add is judged by the spread between them: a bootstrap of three seeds has no tails to
show, so Student's t stands in for it. The two distances from the mean are joined as the legs of a right angle
(MOVER, Zou and Donner 2008). What facts and seeds do together is in both, so the interval is rather too wide than too
narrow. Takes numbers alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from knowshift.measure.bootstrap import CONFIDENCE, PSEUDO, RESAMPLES, Estimate
from knowshift.seeds import derive

Floats = npt.NDArray[np.float64]
Ends = tuple[float, float]

# Resamples by facts held at once as real numbers.
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class Crossed:
    """A mean over facts and seeds.

    Attributes:
        value, low, high: the mean and its 95 % interval. With one seed the interval is over facts alone.
        spread: standard deviation of the seeds' own means; None with one seed.
        seeds: how many.
    """

    value: float
    low: float
    high: float
    spread: float | None
    seeds: int


class Resampled:
    """Facts of some strata, drawn again and again; every column of values is read under the same draws.

    Args:
        strata: (facts,) labels, such as levels; each counts the same in its group.
        groups: (facts,) labels, such as domains; each counts the same. Default one.
        pseudo: whether values have ends, see ``measure.bootstrap``: half a value at either of them is shared out.
        seed: of the draws.
        resamples: how many.
    """

    def __init__(
        self,
        strata: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        *,
        pseudo: bool = True,
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> None:
        stratum = np.asarray(strata)
        group = np.zeros(len(stratum), np.intp) if groups is None else np.asarray(groups)
        if stratum.ndim != 1 or not len(stratum) or group.shape != stratum.shape:
            raise ValueError(f"a row of labels is needed, got the shapes {stratum.shape} and {group.shape}")
        self._seed, self._resamples, self._facts = seed, resamples, len(stratum)
        self._places: list[npt.NDArray[np.intp]] = []
        shares: list[float] = []
        owners = np.unique(group)
        for owner in owners:
            inside = group == owner
            own = np.unique(stratum[inside])
            self._places += [np.flatnonzero(inside & (stratum == name)) for name in own]
            shares += [1 / (len(own) * len(owners))] * len(own)
        self._shares = shares
        self._pseudo = PSEUDO / len(shares) if pseudo else 0.0

    def means(self, values: Floats) -> Floats:
        """(columns,) of (facts, columns): the mean over groups of the mean over strata."""
        parts = [share * values[place].mean(axis=0) for share, place in zip(self._shares, self._places, strict=True)]
        return np.sum(parts, axis=0)  # type: ignore[no-any-return]

    def draws(self, values: Floats, ends: Ends | None) -> Floats:
        """(resamples, columns) of (facts, columns): the same means of facts drawn again."""
        if len(values) != self._facts:
            raise ValueError(f"{self._facts} facts, got {len(values)} values")
        if (ends is not None) != (self._pseudo > 0):
            raise ValueError("facts are drawn with pseudo where values have ends, and else without")
        low, high = ends or (0.0, 0.0)
        drawn = np.zeros((self._resamples, values.shape[1]))
        for share, place, counts in zip(self._shares, self._places, self._counts, strict=True):
            size = len(place)
            known = np.concatenate(
                [values[place], np.full((1, values.shape[1]), low), np.full((1, values.shape[1]), high)]
            )
            centre = self._chances(size) @ known
            widen = np.sqrt(size / (size - 1)) if size > 1 else 1.0
            rows = max(1, _BLOCK // (size + 2))
            for start in range(0, self._resamples, rows):
                part = counts[start : start + rows].astype(np.float64)
                drawn[start : start + rows] += share * (centre + (part @ known / size - centre) * widen)
        return drawn.clip(low, high) if ends else drawn

    def crossed(self, tables: Sequence[Floats], ends: Ends | None = None) -> list[Crossed]:
        """The mean of each table of (facts, seeds), and its interval.

        Args:
            tables: such as hits, or differences of hits between two methods of the same seeds.
            ends: the least and the most that a value can be; given with ``pseudo``, and only then.
        """
        if not tables:
            return []
        drawn = self.draws(np.stack([table.mean(axis=1) for table in tables], axis=1), ends)
        tail = (1 - CONFIDENCE) / 2
        lows, highs = np.quantile(drawn, [tail, 1 - tail], axis=0)
        found = []
        for table, low, high in zip(tables, lows, highs, strict=True):
            each = self.means(table)
            value = float(each.mean())
            found.append(_joined(each, Estimate(value, min(float(low), value), max(float(high), value)), ends))
        return found

    @cached_property
    def _counts(self) -> list[npt.NDArray[np.int16]]:
        """By stratum, (resamples, facts + 2): how often each fact was drawn, and either end."""
        generator = np.random.default_rng(derive(self._seed, "crossed facts"))
        found = []
        for place in self._places:
            size = len(place)
            found.append(generator.multinomial(size, self._chances(size), size=self._resamples).astype(np.int16))
        return found

    def _chances(self, size: int) -> Floats:
        return np.array([*[1.0] * size, self._pseudo, self._pseudo]) / (size + 2 * self._pseudo)


def over_seeds(values: npt.ArrayLike, ends: Ends | None = None) -> Crossed:
    """The mean of one number a seed, such as a share of weights, with Student's interval; of one seed, no interval."""
    each = np.asarray(values, dtype=np.float64)
    value = float(each.mean())
    return _joined(each, Estimate(value, value, value), ends)


def _joined(each: Floats, facts: Estimate, ends: Ends | None) -> Crossed:
    """The interval over facts, widened by what the seeds' own means say."""
    if len(each) == 1:
        return Crossed(facts.value, facts.low, facts.high, None, 1)
    spread = float(each.std(ddof=1))
    leg = spread / np.sqrt(len(each)) * _quantile(len(each) - 1)
    low = facts.value - float(np.hypot(facts.value - facts.low, leg))
    high = facts.value + float(np.hypot(facts.high - facts.value, leg))
    if ends is not None:
        low, high = max(low, ends[0]), min(high, ends[1])
    return Crossed(facts.value, low, high, spread, len(each))


@cache
def _quantile(freedom: int) -> float:
    return float(student.ppf((1 + CONFIDENCE) / 2, freedom))
