"""Restore a random share: the control that asks whether it matters which weights go back.

Exactly floor(n * fraction) elements, drawn by a hash of seed, tensor name and position, get base's bits; no
rescaling (with it, see ``dare``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from knowshift.weights.bits import Bits
from knowshift.weights.merge.method import share
from knowshift.weights.pairing import Pair
from knowshift.weights.ranking import Ranking, exact
from knowshift.weights.scores import Rule
from knowshift.weights.taken import take
from knowshift.weights.walk import Tile


@dataclass(frozen=True, slots=True)
class RandomRestore:
    """Set a random share of the elements back to base.

    Attributes:
        fraction: of the region's elements, from 0 to 1.
    """

    fraction: float = 0.2

    def __post_init__(self) -> None:
        share("--fraction", self.fraction)

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Callable[[Tile], Bits]:
        """The new bits of a tile."""
        ranking = Ranking(pairs, Rule(rank="random", seed=seed))
        (chosen,) = take(ranking, ranking.cuts([exact(self.fraction)]))

        def make(tile: Tile) -> Bits:
            return chosen.restored(tile, tile.score(ranking.rule))

        return make
