"""What concentration looks like with no training at all.

Dividing by |base| ranks the smallest weights first whatever the update is, so a curve of concentration says
little alone. The null keeps every base weight and replaces each tensor's update by Gaussian noise of the same
norm, stored in the same type, scored by the same rule.

All weights of one value meet the same noise. So where equal weights were counted, a value with more weights than
outcomes gives every outcome its expected number of them, which no draw could better; rarer values, and tensors
without a census, get one draw for each weight.
"""

from functools import cache
from math import erfc, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from knowshift.compiled import jit
from knowshift.weights import kernels
from knowshift.weights.bits import Values, decode, encode
from knowshift.weights.ranking import Energies, Histogram, Ranking
from knowshift.weights.scores import TILE, Rule, fill_keys, stream
from knowshift.weights.walk import Tile

_WIDEST = 6.5  # standard deviations
_ROOT = sqrt(0.5)
_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@cache
def quantiles() -> Values:
    """65,536 equally likely standard normal values, divided by the square root of two: see ``add_noise``."""
    normal = NormalDist()
    values = np.array([normal.inv_cdf((place + 0.5) / (1 << 16)) for place in range(1 << 16)])
    # Equal steps in probability lose a little variance in the tails; give it back.
    return np.asarray(values / values.std() / sqrt(2.0), np.float32)


@cache
def magnitudes(dtype: str) -> Values:
    """The finite non-negative values of a 16-bit type, ascending."""
    values = decode(np.arange(1 << 15, dtype=np.uint16), dtype)
    return values[np.isfinite(values)]


def untrained(tile: Tile, scale: float, seed: int) -> tuple[Values, Values]:
    """Base values of ``tile``, and the same with noise of ``scale``, as the tuned type would store it."""
    dtype = tile.pair.tuned.dtype
    base = decode(tile.pair.base_bits(tile.start, tile.stop), dtype)
    noisy = np.empty_like(base)
    source = np.uint64(stream(seed, "null", tile.pair.name))
    kernels.add_noise(base, source, np.uint64(tile.start), np.float32(scale), quantiles(), noisy)
    return base, decode(encode(noisy, dtype), dtype, noisy)


def null_histogram(ranking: Ranking) -> Histogram:
    """The histogram of ``ranking``'s scores with every update replaced by noise."""
    rule = ranking.rule
    scales = [
        sqrt(energy / pair.size) if pair.size else 0.0
        for pair, energy in zip(ranking.pairs, ranking.energy, strict=True)
    ]

    def count(stretch: Tile) -> Energies:
        table = np.zeros((kernels.BINS >> 1, 2))
        entry = ranking.census.entry(stretch)
        scale = scales[stretch.number]
        if entry is None:
            for tile in stretch.cut():
                sides = untrained(tile, scale, rule.seed)
                kernels.tally_scores(_keys(*sides, rule), np.ones(sides[0].size), table)
        else:
            source = stream(rule.seed, "null", stretch.pair.name, stretch.start)
            _count_outcomes(
                np.bincount(entry.base, entry.counts), magnitudes(stretch.pair.tuned.dtype), scale, source, rule, table
            )
        return table

    total = np.zeros((kernels.BINS >> 1, 2))
    for _, table in ranking.walk(count, "no-training null"):
        total += table
    return Histogram(total[:, 0].copy(), total[:, 1].copy())


def _count_outcomes(
    counts: npt.NDArray[Any], values: Values, scale: float, source: int, rule: Rule, table: Energies
) -> None:
    """Add to ``table`` what noise of ``scale`` makes of ``counts[i]`` weights of magnitude ``values[i]``, for all i."""
    present = np.flatnonzero(counts)
    base, noisy, weights = np.empty(TILE, np.float32), np.empty(TILE, np.float32), np.empty(TILE)
    done = 0
    while done < present.size:
        done, used = outcomes(
            present, counts, done, values, scale, np.uint64(source), quantiles(), base, noisy, weights
        )
        kernels.tally_scores(_keys(base[:used], noisy[:used], rule), weights[:used], table)


def _keys(base: Values, tuned: Values, rule: Rule) -> npt.NDArray[np.uint32]:
    return fill_keys(base, tuned, rule, "", 0, np.empty(base.size, np.uint32))


@jit
def outcomes(
    present: Any, counts: Any, done: Any, values: Any, scale: Any, source: Any, normal: Any,
    base: Any, noisy: Any, weights: Any,
) -> Any:  # fmt: skip
    """What ``values[i] + scale * z`` is stored as, z standard normal, for ``i`` in ``present[done:]``.

    Fills ``base``, ``noisy`` and how many of ``counts[i]`` end there, in float64, as far as there is room.
    ``normal`` is as in ``kernels.add_noise``; ``source`` starts the draws.

    Returns the next ``done`` and how many rows were filled.
    """
    top = values.size - 1
    used = 0
    while done < present.size:
        magnitude = present[done]
        center = np.float64(values[magnitude])
        # Stored values in order: ordinal o is values[o], or -values[-o] below zero.
        lowest = _ordinal(center - _WIDEST * scale, values)
        highest = min(_ordinal(center + _WIDEST * scale, values) + 1, top)
        count = counts[magnitude]
        rows = highest - lowest + 1
        drawn = rows > count and rows > 3
        rows = min(rows, np.int64(count)) if drawn else rows
        if used + rows > base.size:
            break
        for i in range(used, used + rows):
            base[i] = center
        if drawn:
            for i in range(rows):
                z = source + (np.uint64(magnitude) << np.uint64(32)) + np.uint64(i + 1) * _GOLDEN
                z = (z ^ (z >> np.uint64(30))) * _MIX1
                z = (z ^ (z >> np.uint64(27))) * _MIX2
                z = z ^ (z >> np.uint64(31))
                noise = normal[np.uint32(z & np.uint64(0xFFFF))] + normal[np.uint32(z >> np.uint64(48))]
                value = center + scale * np.float64(noise)
                below = min(max(_ordinal(value, values), -top), top - 1)
                middle = 0.5 * (_value(below, values) + _value(below + 1, values))
                noisy[used + i] = _value(below + (value > middle), values)
                weights[used + i] = 1.0
        else:
            beyond = 1.0  # chance of more than what came before
            for i in range(rows):
                here = _value(lowest + i, values)
                noisy[used + i] = here
                further = 0.0
                if i + 1 < rows:
                    middle = 0.5 * (here + _value(lowest + i + 1, values))
                    further = 0.5 * erfc((middle - center) / scale * _ROOT)
                weights[used + i] = count * (beyond - further)
                beyond = further
        used += rows
        done += 1
    return done, used


@jit
def _ordinal(value: Any, values: Any) -> Any:
    """The ordinal of the largest stored value that is not above ``value``."""
    if value >= 0:
        return np.int64(np.searchsorted(values, value, "right") - 1)
    return -np.int64(min(np.searchsorted(values, -value), values.size - 1))


@jit
def _value(ordinal: Any, values: Any) -> Any:
    return np.float64(values[ordinal]) if ordinal >= 0 else -np.float64(values[-ordinal])


def shares(histogram: Histogram, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Share of the summed score held by the largest ``counts`` scores.

    Exact at the edges of bins, which are 1/128 of a power of two wide; within one, every score counts as the
    bin's mean.
    """
    total = histogram.sums.sum()
    if not total:
        return np.zeros(len(counts))
    held = np.zeros(len(counts))
    for index, count in enumerate(counts):
        if count:
            high = histogram.bin_of(int(count))
            part = (count - histogram.above[high]) / histogram.counts[high]
            held[index] = histogram.sums_above[high] + part * histogram.sums[high]
    return np.asarray(held / total)
