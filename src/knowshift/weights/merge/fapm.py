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
from typing import Any

import numpy as np
import numpy.typing as npt

from knowshift.compiled import bits_of, jit
from knowshift.weights.bits import Bits, pick
from knowshift.weights.merge.method import Make, finite_values, share
from knowshift.weights.merge.tensors import Latest, over
from knowshift.weights.pairing import Pair
from knowshift.weights.ranking import exact
from knowshift.weights.walk import Tile

Keys = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]

_HALF = 1 << 16


@jit
def fill_keys(base: Any, tuned: Any, mean: Any, keys: Any) -> None:
    """Unsigned integers that order like the scores, from float32 values; ``mean`` is that of the tensor's |base|."""
    for i in range(keys.size):
        step = abs(tuned[i] - base[i])
        score = step - mean * (step / abs(base[i])) if step > 0 else np.float32(0)
        # No number is 0 times infinity, in a tensor of which every base weight is 0.
        bits = bits_of(score) if score == score else np.uint32(0xFF800000)
        keys[i] = ~bits if bits >> np.uint32(31) else bits | np.uint32(0x80000000)


@jit
def count_high(keys: Any, counts: Any) -> None:
    """Keys by their high 16 bits."""
    for i in range(keys.size):
        counts[keys[i] >> np.uint32(16)] += 1


@jit
def count_low(keys: Any, high: Any, counts: Any) -> None:
    """Keys whose high 16 bits are ``high``, by their low 16 bits."""
    for i in range(keys.size):
        if keys[i] >> np.uint32(16) == high:
            counts[keys[i] & np.uint32(0xFFFF)] += 1


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
    """Both sides and the keys of a tile."""
    left = tile.pair.base_bits(tile.start, tile.stop)
    right = tile.pair.tuned_bits(tile.start, tile.stop)
    keys = np.empty(left.size, np.uint32)
    fill_keys(*finite_values(tile, left, right), mean, keys)
    return left, right, keys


def _choose(pair: Pair, count: int) -> Kept:
    """The ``count`` first elements of a tensor by score, in passes over it that count and never sort."""

    def sizes(tile: Tile) -> float:
        left = tile.pair.base_bits(tile.start, tile.stop)
        return float(np.abs(finite_values(tile, left, left)[0]).sum(dtype=np.float64))

    mean = np.float32(sum(size for _, size in over(pair, sizes)) / pair.size)
    if not count:
        return Kept(mean, _HALF * _HALF - 1, 0, 0)

    def high(tile: Tile) -> Counts:
        counts = np.zeros(_HALF, np.int64)
        count_high(_keys(tile, mean)[2], counts)
        return counts

    def low(tile: Tile) -> Counts:
        counts = np.zeros(_HALF, np.int64)
        count_low(_keys(tile, mean)[2], np.uint32(top), counts)
        return counts

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
