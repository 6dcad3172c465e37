"""What concentration looks like with no training at all.

Dividing by |base| ranks the smallest weights first whatever the update is, so a curve of concentration says
little alone. The null keeps every base weight and replaces each tensor's update by Gaussian noise of the same
norm, stored in the same type, scored by the same rule.
"""

from functools import cache
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from knowshift.weights import kernels
from knowshift.weights.bits import Values, decode, encode
from knowshift.weights.ranking import Histogram, Ranking, Tables, tally_table
from knowshift.weights.scores import fill_keys, stream
from knowshift.weights.walk import Tile, walk


@cache
def quantiles() -> Values:
    """65,536 equally likely standard normal values, divided by the square root of two: see ``add_noise``."""
    normal = NormalDist()
    values = np.array([normal.inv_cdf((place + 0.5) / (1 << 16)) for place in range(1 << 16)])
    # Equal steps in probability lose a little variance in the tails; give it back.
    return np.asarray(values / values.std() / sqrt(2.0), np.float32)


def untrained(tile: Tile, scale: float, seed: int) -> tuple[Values, Values]:
    """Base values of ``tile``, and the same with noise of ``scale``, as the tuned type would store it."""
    dtype = tile.pair.tuned.dtype
    base = decode(tile.pair.base_bits(tile.start, tile.stop), dtype)
    noisy = np.empty_like(base)
    source = np.uint64(stream(seed, "null", tile.pair.name))
    kernels.add_noise(base, source, np.uint64(tile.start), np.float32(scale), quantiles(), noisy)
    return base, decode(encode(noisy, dtype), dtype, noisy)


def null_histogram(ranking: Ranking) -> Histogram:
    """The histogram of ``ranking``'s scores with every update replaced by noise; one draw of each element."""
    rule = ranking.rule
    scales = [
        sqrt(energy / pair.size) if pair.size else 0.0
        for pair, energy in zip(ranking.pairs, ranking.energy, strict=True)
    ]
    tables = Tables(tally_table)

    def count(tile: Tile) -> None:
        base, noisy = untrained(tile, scales[tile.number], rule.seed)
        keys = fill_keys(base, noisy, rule, tile.pair.name, tile.start, np.empty(base.size, np.uint32))
        kernels.tally(keys, tables.mine())

    for _ in walk(ranking.pairs, count, "no-training null"):
        pass
    return Histogram(tables.total().sum(axis=0))


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
