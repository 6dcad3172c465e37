"""How much of the update a method removes, measured on the very bits it makes.

That is the figure by which methods can be compared fairly: restoring, interpolating and trimming all take some of
the update's squared norm away, and only at equal shares does it show whether it matters *which* part goes.
"""

import threading
from fractions import Fraction

import numpy as np

from knowshift.errors import InputError
from knowshift.weights import kernels
from knowshift.weights.bits import Bits, decode
from knowshift.weights.merge.method import Make, finite_values
from knowshift.weights.walk import Tile


class Meter:
    """A method's function of a tile that keeps count. Every tile must be asked for once.

    Attributes:
        moved: elements that no longer have the tuned bits.
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self._lock = threading.Lock()
        # Tiles come in any order; exact sums do not depend on it.
        self._update = Fraction(0)
        self._removed = Fraction(0)
        self.moved = 0

    def __call__(self, tile: Tile) -> Bits:
        """The new bits of ``tile``.

        Raises:
            InputError: naming the tensor if either side, or what was made of them, holds NaN or infinite values.
        """
        left = tile.pair.base_bits(tile.start, tile.stop)
        right = tile.pair.tuned_bits(tile.start, tile.stop)
        base, tuned = finite_values(tile, left, right)
        bits = self._make(tile)
        update = kernels.survey(base, tuned)[0]
        removed, overflown, _ = kernels.survey(decode(bits, tile.pair.tuned.dtype), tuned)
        if overflown:
            raise InputError(
                f"{tile.pair.tuned.file}: tensor {tile.pair.name!r}: {overflown} of the merged weights of elements "
                f"{tile.start} to {tile.stop} are beyond the range of {tile.pair.tuned.dtype}"
            )
        with self._lock:
            self._update += Fraction(float(update))
            self._removed += Fraction(float(removed))
            self.moved += int(np.count_nonzero(bits != right))
        return bits

    @property
    def removed_norm_share(self) -> float:
        """Squared norm of (tuned - merged), as stored, over that of (tuned - base).

        More than 1 for methods that push weights beyond either model, as rescaling does; 0 for identical models.
        """
        return float(self._removed / self._update) if self._update else 0.0
