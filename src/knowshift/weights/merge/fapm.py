"""FAPM, the forgetting-aware pruning metric (arXiv 2509.08255): keep what moved far, but not far for its weight.

Of every tensor, on its own, the elements with the largest

    S = |D| - mean(|W|) * |D| / |W|,    D = tuned - base,  W = base

keep the tuned bits, all others get base's; the mean is over the tensor. The paper keeps a tenth, and its released
code takes every tensor of the model, norms and embeddings too. S may be negative: what is kept is a share, not what
lies above zero. Where nothing moved S is 0, also on a base weight of 0; where such a weight did move S is minus
infinity. Equal scores are kept in row-major order. Everything is computed in float32 (their code: in bfloat16).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from knowshift.weights.bits import Bits, Values, pick
from knowshift.weights.merge.method import Make, finite_values, share
from knowshift.weights.merge.tensors import Latest, over
from knowshift.weights.pairing import Pair
from knowshift.weights.ranking import exact
from knowshift.weights.walk import Tile

Keys = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]

_HALF = 1 << 16


def score(base: Values, tuned: Values, mean: np.float32) -> Values:
    """S of each element; ``mean`` is that of the whole tensor's |base|."""
    step, size = np.abs(tuned - base), np.abs(base)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        discounted = step - mean * (step / size)
    discounted[np.isnan(discounted)] = -np.inf  # 0 times infinity, where every base weight is 0
    return np.where(step == 0, np.float32(0), discounted)


@dataclass(frozen=True, slots=True)
class Kept:
    """Which elements of one tensor stay tuned.

    Attributes:
        mean: of |base|.
        threshold: keys above it are kept.
        last: start of the tile in which the ties run out.
        ties: how many of the keys equal to the threshold are kept there; before it all, after it none.
    """

    mean: np.float32
    threshold: int
    last: int
    ties: int


@dataclass(frozen=True, slots=True)
class Fapm:
    """Keep, in every tensor, the share of the update that moved far without moving far for its weight.

    Attributes:
        keep: of each tensor's n elements exactly floor(n * keep) stay tuned, from 0 to 1.
    """

    keep: float = 0.1

    def __post_init__(self) -> None:
        share("--keep", self.keep)

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Make:
        """The new bits of a tile."""
        fraction = exact(self.keep, "--keep")
        kept = Latest[int, Kept](
            lambda number: _choose(pairs[number], pairs[number].size * fraction.numerator // fraction.denominator)
        )

        def make(tile: Tile) -> Bits:
            chosen = kept(tile.number)
            left, right, keys = _keys(tile, chosen.mean)
            mask = keys > chosen.threshold
            ties = keys.size if tile.start < chosen.last else chosen.ties if tile.start == chosen.last else 0
            mask[np.flatnonzero(keys == chosen.threshold)[:ties]] = True
            return pick(mask, right, left)

        return make


def _keys(tile: Tile, mean: np.float32) -> tuple[Bits, Bits, Keys]:
    """Both sides, and unsigned integers that order like the scores, minus infinity first."""
    left = tile.pair.base_bits(tile.start, tile.stop)
    right = tile.pair.tuned_bits(tile.start, tile.stop)
    # Adding 0 makes a negative zero positive: equal scores have equal keys.
    bits = (score(*finite_values(tile, left, right), mean) + np.float32(0)).view(np.uint32)
    return left, right, np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _choose(pair: Pair, count: int) -> Kept:
    """The ``count`` first elements of a tensor by score, in passes over it that count and never sort."""

    def sizes(tile: Tile) -> float:
        left = tile.pair.base_bits(tile.start, tile.stop)
        return float(np.abs(finite_values(tile, left, left)[0]).sum(dtype=np.float64))

    mean = np.float32(sum(size for _, size in over(pair, sizes)) / pair.size)
    if not count:
        return Kept(mean, _HALF * _HALF - 1, 0, 0)

    def high(tile: Tile) -> Counts:
        return np.bincount(_keys(tile, mean)[2] >> 16, minlength=_HALF)

    def low(tile: Tile) -> Counts:
        keys = _keys(tile, mean)[2]
        return np.bincount(keys[keys >> 16 == top] & (_HALF - 1), minlength=_HALF)

    top, count = _place(_total(pair, high), count)
    bottom, count = _place(_total(pair, low), count)
    threshold = (top << 16) + bottom

    def equal(tile: Tile) -> int:
        return int(np.count_nonzero(_keys(tile, mean)[2] == threshold))

    for tile, ties in over(pair, equal):
        if ties >= count:
            return Kept(mean, threshold, tile.start, count)
        count -= ties
    raise AssertionError("the tensor changed while it was read")


def _total(pair: Pair, work: Callable[[Tile], Counts]) -> Counts:
    total = np.zeros(_HALF, np.int64)
    for _, counts in over(pair, work):
        total += counts
    return total


def _place(counts: Counts, wanted: int) -> tuple[int, int]:
    """The bin that holds the ``wanted``-th largest, and how many of that bin are wanted."""
    reached = np.cumsum(counts[::-1])[::-1]
    place = int(np.flatnonzero(reached >= wanted)[-1])
    return place, wanted - int(reached[place] - counts[place])
