"""Which elements a cut takes: how many of each tensor, how much of the update, and the mask of any tile.

Knows a finished ranking; one pass over both checkpoints serves all cuts. The pass finds the tile in which each
cut's ties run out, so that masks can then be made for any tile alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from knowshift.weights import kernels
from knowshift.weights.bits import Bits, pick
from knowshift.weights.ranking import Counts, Cut, Ranking
from knowshift.weights.scores import Keys, Scored
from knowshift.weights.walk import Tile, walk

Energies = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Taken:
    """The elements one cut takes.

    Attributes:
        cut: the cut.
        counts: taken elements of each pair.
        energy: their part of the squared norm of the update.
        last: pair number and start of the tile in which the ties run out.
        ties_in_last: how many ties are taken there; before it all, after it none.
    """

    cut: Cut
    counts: Counts
    energy: float
    last: tuple[int, int]
    ties_in_last: int

    def mask(self, tile: Tile, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which elements of ``tile``, whose keys are ``keys``, are taken."""
        place = (tile.number, tile.start)
        ties = keys.size if place < self.last else self.ties_in_last if place == self.last else 0
        mask = np.empty(keys.size, np.bool_)
        kernels.choose(keys, np.uint32(self.cut.threshold), ties, mask)
        return mask

    def restored(self, tile: Tile, scored: Scored) -> Bits:
        """Base's bits where taken, the tuned bits elsewhere."""
        return pick(self.mask(tile, scored.keys), scored.base_bits, scored.tuned_bits)


def take(ranking: Ranking, cuts: Sequence[Cut]) -> list[Taken]:
    """What each of ``cuts`` takes of ``ranking``."""
    if not cuts:
        return []
    descending = sorted({cut.threshold for cut in cuts}, reverse=True)
    thresholds = np.array([*descending, 0], np.uint32)
    # For each bin of high bits, how many thresholds lie in higher bins.
    first = np.searchsorted(
        -(thresholds[:-1] >> np.uint32(16)).astype(np.int64), -np.arange(kernels.BINS), side="left"
    ).astype(np.uint16)
    bucket = np.array([2 * descending.index(cut.threshold) for cut in cuts])

    def divide(tile: Tile) -> tuple[Counts, Energies]:
        scored = tile.score(ranking.rule)
        counts = np.zeros((kernels.LANES, 2 * thresholds.size), np.int64)
        energy = np.zeros((kernels.LANES, 2 * thresholds.size))
        kernels.divide(scored.base, scored.tuned, scored.keys, first, thresholds, counts, energy)
        return counts.sum(axis=0), energy.sum(axis=0)

    left = np.array([cut.ties for cut in cuts])
    totals = np.zeros((len(cuts), len(ranking.pairs)), np.int64)
    energies = np.zeros(len(cuts))
    last = [(0, 0)] * len(cuts)
    ties_in_last = [0] * len(cuts)
    for tile, (counts, energy) in walk(ranking.pairs, divide, "update restored"):
        ties = counts[bucket + 1]
        taken = np.minimum(left, ties)
        totals[:, tile.number] += np.cumsum(counts)[bucket] + taken
        energies += np.cumsum(energy)[bucket]
        energies += np.where(ties <= left, energy[bucket + 1], 0.0)
        for index in map(int, np.flatnonzero((left > 0) & (ties >= left))):
            last[index], ties_in_last[index] = (tile.number, tile.start), int(left[index])
            if ties[index] > left[index]:
                scored = tile.score(ranking.rule)
                energies[index] += kernels.tied_energy(
                    scored.base,
                    scored.tuned,
                    scored.keys,
                    np.uint32(cuts[index].threshold),
                    int(left[index]),
                )
        left -= taken
    return [
        Taken(cut, totals[index], float(energies[index]), last[index], ties_in_last[index])
        for index, cut in enumerate(cuts)
    ]
