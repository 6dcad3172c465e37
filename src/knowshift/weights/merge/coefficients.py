"""One coefficient a tensor: base + a_m * (tuned - base), each tensor m by its own a_m.

Interpolation is the case of equal coefficients, restoring whole tensors that of coefficients 0 and 1. 16-bit weights
are rounded at random, as ``interpolate`` does where a share is asked for: rounded to nearest, updates of a step or two
would jump to base or to tuned, whatever the coefficient. Where coefficients come from is not known here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from knowshift.errors import InputError
from knowshift.weights.bits import Bits
from knowshift.weights.merge.interpolate import mixing
from knowshift.weights.merge.method import Make, share
from knowshift.weights.pairing import Pair
from knowshift.weights.walk import Tile


@dataclass(frozen=True, slots=True)
class Coefficients:
    """A share of each tensor's update.

    Attributes:
        values: by tensor, as the tuned checkpoint names it; 0 is base and 1 tuned, both bit for bit. Others stay tuned.
    """

    values: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            share(f"the coefficient of {name}", value)

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Make:
        """The new bits of a tile.

        Raises:
            InputError: naming a coefficient of a tensor that is not in the region.
        """
        if alien := self.values.keys() - {pair.name for pair in pairs}:
            raise InputError(f"there is no tensor {sorted(alien)[0]!r} in the region to have a coefficient")
        makes = {pair.name: mixing(self.values.get(pair.name, 1.0), seed) for pair in pairs}

        def make(tile: Tile) -> Bits:
            return makes[tile.pair.name](tile)

        return make
