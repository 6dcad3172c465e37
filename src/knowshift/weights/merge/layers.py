"""Restore whole transformer blocks: which of them does the model do without its update in, and which not?

The paper (arXiv 2509.16596) restores four neighbouring blocks at a time: the first four break the model, most
others cost a few points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from knowshift.errors import InputError
from knowshift.weights.merge.method import Make
from knowshift.weights.merge.reset import ranges, resetting
from knowshift.weights.pairing import Pair


@dataclass(frozen=True, slots=True)
class Layers:
    """Set whole transformer blocks back to base, bit for bit.

    Attributes:
        layers: which, counted from 0, such as ``0-3,12``; of each, every tensor of the region.
        inverse: set everything of the region but these blocks back, what lies outside of blocks included.
    """

    layers: str = ""
    inverse: bool = False

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError("layers needs --layers, such as 0-3,12")
        ranges("--layers", self.layers)

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Make:
        """The new bits of a tile."""
        wanted = ranges("--layers", self.layers)
        known = {pair.place.layer for pair in pairs if pair.place.layer is not None}
        if lacking := sorted(wanted - known):
            there = f"layers {min(known)} to {max(known)}" if known else "no layers"
            raise InputError(f"--layers {self.layers}: there is no layer {lacking[0]}: the region has {there}")
        return resetting([(pair.place.layer in wanted) != self.inverse for pair in pairs])
