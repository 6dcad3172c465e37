"""DARE (arXiv 2311.03099): drop a random share of the update and rescale the rest to keep its expectation.

Each element of tuned - base is dropped with probability p, which gives it base's bits, or multiplied by
1 / (1 - p).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from knowshift.weights import kernels
from knowshift.weights.bits import Bits, Values, encode, pick
from knowshift.weights.merge.method import finite_values, share
from knowshift.weights.pairing import Pair
from knowshift.weights.scores import stream
from knowshift.weights.walk import Tile


def rescaled(base: Values, tuned: Values, drop: float) -> Values:
    """base + (tuned - base) / (1 - drop), computed in float32."""
    return base + (tuned - base) / np.float32(1.0 - drop)


@dataclass(frozen=True, slots=True)
class Dare:
    """Drop and rescale.

    Attributes:
        drop: the probability p with which an element's update is dropped, from 0 to less than 1.
    """

    drop: float = 0.9

    def __post_init__(self) -> None:
        share("--drop", self.drop, below_one=True)

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Callable[[Tile], Bits]:
        """The new bits of a tile."""
        limit = np.uint32(round(self.drop * 2**31))

        def make(tile: Tile) -> Bits:
            left = tile.pair.base_bits(tile.start, tile.stop)
            right = tile.pair.tuned_bits(tile.start, tile.stop)
            base, tuned = finite_values(tile, left, right)
            draws = np.empty(right.size, np.uint32)
            source = np.uint64(stream(seed, "dare", tile.pair.name))
            kernels.random_keys(source, np.uint64(tile.start), draws)
            if not self.drop:
                return right
            kept = encode(rescaled(base, tuned, self.drop), tile.pair.tuned.dtype)
            return pick((draws < limit) | (left == right), left, kept)

        return make
