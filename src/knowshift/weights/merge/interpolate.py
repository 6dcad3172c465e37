"""Interpolation between base and tuned (WiSE-FT): base + alpha * (tuned - base).

Removing a part of an update: what interpolation removes is (1 - alpha) of the update in every element, so
(1 - alpha)**2 of its squared norm. To remove the share S of the squared norm, as a restoration that takes that
share does, alpha = 1 - sqrt(S). This holds before rounding to the stored type; in bfloat16, where most updates
are a step or two, rounding sends each element to one side or the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from knowshift.errors import InputError
from knowshift.weights.bits import Bits, Values, encode
from knowshift.weights.merge.method import finite_values, share
from knowshift.weights.pairing import Pair
from knowshift.weights.walk import Tile


def interpolation(base: Values, tuned: Values, alpha: float) -> Values:
    """base + alpha * (tuned - base), computed in float32."""
    return base + np.float32(alpha) * (tuned - base)


@dataclass(frozen=True, slots=True)
class Interpolate:
    """Weights between the two models.

    Attributes:
        alpha: 0 is base, 1 is tuned, both bit for bit.
        removed_share: instead of ``alpha``, the share of the squared norm of the update to remove, 0 to 1.
    """

    alpha: float | None = None
    removed_share: float | None = None

    def __post_init__(self) -> None:
        if (self.alpha is None) == (self.removed_share is None):
            raise InputError("interpolate needs either --alpha or --removed-share")
        if self.alpha is not None:
            share("--alpha", self.alpha)
        if self.removed_share is not None:
            share("--removed-share", self.removed_share)

    @property
    def weight(self) -> float:
        """The alpha in use."""
        if self.alpha is not None:
            return self.alpha
        return 1.0 - sqrt(self.removed_share or 0.0)

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Callable[[Tile], Bits]:
        """The new bits of a tile."""
        alpha = self.weight

        def make(tile: Tile) -> Bits:
            left = tile.pair.base_bits(tile.start, tile.stop)
            right = tile.pair.tuned_bits(tile.start, tile.stop)
            if alpha in (0.0, 1.0):
                return right if alpha else left
            base, tuned = finite_values(tile, left, right)
            mixed = encode(interpolation(base, tuned, alpha), tile.pair.tuned.dtype)
            # Where nothing changed nothing moves, not even the sign of a zero.
            return np.where(left == right, right, mixed)

        return make
