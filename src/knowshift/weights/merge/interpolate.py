"""Interpolation between base and tuned (WiSE-FT, arXiv 2109.01903): base + alpha * (tuned - base).

How much of an update interpolation removes: the part 1 - alpha of it in every element, so (1 - alpha)**2 of its
squared norm. To remove the share S, as a restoration that takes that share does, alpha = 1 - sqrt(S).

That holds for real numbers. Stored weights are rounded, and in bfloat16, where most updates are a step or two,
rounding to nearest sends nearly all elements to base just below alpha = 1/2 and to tuned just above, so that no
alpha removes a wanted share. Where a share is asked for, 16-bit weights are therefore rounded up or down at random
(seeded) so that their expected value is the interpolation, and alpha is the one whose weights, as stored, remove
that share. With ``alpha`` given, weights are rounded to nearest as usual.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from knowshift.errors import InputError
from knowshift.weights import kernels
from knowshift.weights.bits import Bits, Values, decode, encode, encode_stochastic, pick
from knowshift.weights.merge.method import finite_values, share
from knowshift.weights.pairing import Pair
from knowshift.weights.scores import stream
from knowshift.weights.walk import Tile, walk

_NEAR = 1e-3  # a removed share this close to the wanted one, relatively, is taken
_TRIES = 12


@dataclass(frozen=True, slots=True)
class Mix:
    """An interpolation ready to be made.

    Attributes:
        alpha: the weight of the tuned model.
        removed_norm_share: squared norm of (tuned - interpolated), as stored, over that of (tuned - base).
        bits: the new bits of a tile.
    """

    alpha: float
    removed_norm_share: float
    bits: Callable[[Tile], Bits]


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

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Callable[[Tile], Bits]:
        """The new bits of a tile."""
        return mixing(self.alpha, None) if self.alpha is not None else self.solve(pairs, seed).bits

    def solve(self, pairs: Sequence[Pair], seed: int) -> Mix:
        """The interpolation asked for, measured.

        Raises:
            InputError: naming the tensor if either side holds NaN or infinite values.
        """
        if self.alpha is not None:
            return _measured(pairs, self.alpha, None)
        wanted = float(self.removed_share or 0.0)
        best = _measured(pairs, 1.0 - sqrt(wanted), seed)
        # False position between the ends, where all and nothing is removed: a larger alpha never removes more.
        low, high = (0.0, 1.0 - wanted), (1.0, -wanted)
        for _ in range(_TRIES):
            excess = best.removed_norm_share - wanted
            if abs(excess) <= _NEAR * wanted:
                break
            # Halving the end that stays (the Illinois rule) keeps it from staying for ever.
            if excess > 0:
                low, high = (best.alpha, excess), (high[0], high[1] / 2)
            else:
                low, high = (low[0], low[1] / 2), (best.alpha, excess)
            following = low[0] + (high[0] - low[0]) * low[1] / (low[1] - high[1])
            best = _measured(pairs, following, seed)
        return best


def interpolation(base: Values, tuned: Values, alpha: float) -> Values:
    """base + alpha * (tuned - base), computed in float32."""
    return base + np.float32(alpha) * (tuned - base)


def mixing(alpha: float, seed: int | None) -> Callable[[Tile], Bits]:
    """The new bits of a tile at ``alpha``, rounded at random under ``seed`` or, without, to nearest."""

    def mix(tile: Tile) -> Bits:
        left = tile.pair.base_bits(tile.start, tile.stop)
        right = tile.pair.tuned_bits(tile.start, tile.stop)
        base, tuned = finite_values(tile, left, right)
        if alpha in (0.0, 1.0):
            return right if alpha else left
        values, dtype = interpolation(base, tuned, alpha), tile.pair.tuned.dtype
        if seed is None:
            mixed = encode(values, dtype)
        else:
            source = stream(seed, "interpolate", tile.pair.name)
            mixed = encode_stochastic(values, dtype, source, tile.start)
        # Where nothing changed nothing moves, not even the sign of a zero.
        return pick(left == right, right, mixed)

    return mix


def _measured(pairs: Sequence[Pair], alpha: float, seed: int | None) -> Mix:
    mix = mixing(alpha, seed)

    def energies(tile: Tile) -> tuple[float, float]:
        dtype = tile.pair.tuned.dtype
        here = decode(mix(tile), dtype)
        base = decode(tile.pair.base_bits(tile.start, tile.stop), dtype)
        tuned = decode(tile.pair.tuned_bits(tile.start, tile.stop), dtype)
        return float(kernels.survey(here, tuned)[0]), float(kernels.survey(base, tuned)[0])

    parts = [energy for _, energy in walk(pairs, energies, "interpolating")]
    whole = sum(update for _, update in parts)
    return Mix(alpha, min(sum(part for part, _ in parts) / whole, 1.0) if whole else 0.0, mix)
