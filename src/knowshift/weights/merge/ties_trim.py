"""The trim step of TIES-Merging (arXiv 2306.01708): keep the largest changes, reset the rest.

The elements with the largest |tuned - base| over all of the region's tensors together keep the tuned bits, all
others get base's. With a single tuned model there are no signs to elect, so the trim is all that is left of
the method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from knowshift.weights.bits import Bits, pick
from knowshift.weights.merge.method import share
from knowshift.weights.pairing import Pair
from knowshift.weights.ranking import Ranking, exact
from knowshift.weights.scores import Rule
from knowshift.weights.taken import take
from knowshift.weights.walk import Tile


@dataclass(frozen=True, slots=True)
class TiesTrim:
    """Keep the top share by absolute change.

    Attributes:
        keep: exactly floor(n * keep) elements stay tuned, from 0 to 1.
    """

    keep: float = 0.2

    def __post_init__(self) -> None:
        share("--keep", self.keep)

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Callable[[Tile], Bits]:
        """The new bits of a tile."""
        ranking = Ranking(pairs, Rule(rank="absolute"))
        (kept,) = take(ranking, ranking.cuts([exact(self.keep, "--keep")]))

        def make(tile: Tile) -> Bits:
            scored = tile.score(ranking.rule)
            return pick(kept.mask(tile, scored.keys), scored.tuned_bits, scored.base_bits)

        return make
