"""Which elements a cut takes: how many of each tensor, how much of the update, and the mask of any tile.

Knows a finished ranking. One pass over it serves all cuts; then the ties of each cut are followed, tile by tile,
through the one stretch in which they run out, so that masks can be made for any tile alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from knowshift.weights import kernels
from knowshift.weights.bits import Bits, steady
from knowshift.weights.census import Census
from knowshift.weights.ranking import Counts, Cut, Energies, Ranking
from knowshift.weights.scores import Keys, Rule, Scored
from knowshift.weights.walk import Tile, in_order


@dataclass(frozen=True, slots=True)
class Taken:
    """The elements one cut takes.

    Attributes:
        cut: the cut.
        counts: taken elements of each pair.
        energy: their part of the squared norm of the update.
        end: pair number and element before which ties are taken.
    """

    cut: Cut
    counts: Counts
    energy: float
    end: tuple[int, int]

    def mask(self, tile: Tile, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which elements of ``tile``, whose keys are ``keys``, are taken."""
        mask = np.empty(keys.size, np.bool_)
        kernels.choose(keys, np.uint32(self.cut.threshold), self._split(tile), mask)
        return mask

    def restored(self, tile: Tile, scored: Scored) -> Bits:
        """Base's bits where taken, the tuned bits elsewhere."""
        out = np.empty_like(scored.tuned_bits)
        sides = steady(scored.base_bits), steady(scored.tuned_bits)
        kernels.mix(scored.keys, np.uint32(self.cut.threshold), self._split(tile), *sides, out)
        return out

    def _split(self, tile: Tile) -> int:
        """How many elements of ``tile`` come before the ties run out."""
        number, element = self.end
        if tile.number != number:
            return tile.stop - tile.start if tile.number < number else 0
        return min(max(element - tile.start, 0), tile.stop - tile.start)


def take(ranking: Ranking, cuts: Sequence[Cut], *, places: bool = True) -> list[Taken]:
    """What each of ``cuts`` takes of ``ranking``.

    Without ``places`` ties are followed only where energies need it, and no masks can be made.
    """
    if not cuts:
        return []
    bucket, divide = _division(ranking.rule, ranking.census, cuts)
    left = np.array([cut.ties for cut in cuts])
    counts = np.zeros((len(cuts), len(ranking.pairs)), np.int64)
    energies = np.zeros(len(cuts))
    end = [(0, 0)] * len(cuts)
    within: dict[int, dict[int, int]] = {}  # by stretch, the cuts whose ties run out there and how many they take
    for place, (stretch, (here, energy)) in enumerate(ranking.walk(divide, "update restored")):
        ties = here[bucket + 1]
        taken = np.minimum(left, ties)
        counts[:, stretch.number] += np.cumsum(here)[bucket] + taken
        energies += np.cumsum(energy)[bucket] + np.where(ties <= left, energy[bucket + 1], 0.0)
        for cut in map(int, np.flatnonzero((left > 0) & (ties >= left))):
            end[cut] = (stretch.number, stretch.stop)
            if ties[cut] > left[cut] and (places or energy[bucket[cut] + 1] > 0):
                within.setdefault(place, {})[cut] = int(left[cut])
        left -= taken

    def follow(job: tuple[Tile, dict[int, int]]) -> dict[int, tuple[float, int]]:
        stretch, wanted = job
        return _follow(stretch, ranking.rule, {cut: (cuts[cut].threshold, n) for cut, n in wanted.items()})

    jobs = ((ranking.census.stretches[place], wanted) for place, wanted in within.items())
    for (stretch, _), found in in_order(jobs, follow):
        for cut, (tied, element) in found.items():
            energies[cut] += tied
            end[cut] = (stretch.number, element)
    return [Taken(cut, counts[place], float(energies[place]), end[place]) for place, cut in enumerate(cuts)]


def _division(
    rule: Rule, census: Census, cuts: Sequence[Cut]
) -> tuple[Counts, Callable[[Tile], tuple[Counts, Energies]]]:
    """The bucket in front of each cut's threshold, see ``kernels.divide``, and how to divide a stretch into them."""
    descending = sorted({cut.threshold for cut in cuts}, reverse=True)
    thresholds = np.array([*descending, 0], np.uint32)
    # For each bin of high bits, how many thresholds lie in higher bins.
    first = np.searchsorted(
        -(thresholds[:-1] >> np.uint32(16)).astype(np.int64), -np.arange(kernels.BINS), side="left"
    ).astype(np.uint16)

    def divide(stretch: Tile) -> tuple[Counts, Energies]:
        counts = np.zeros((kernels.LANES, 2 * thresholds.size), np.int64)
        energy = np.zeros((kernels.LANES, 2 * thresholds.size))
        for part in census.parts(stretch, rule):
            kernels.divide(part.base, part.tuned, part.keys, part.weights, first, thresholds, counts, energy)
        return counts.sum(axis=0), energy.sum(axis=0)

    return np.array([2 * descending.index(cut.threshold) for cut in cuts]), divide


def _follow(stretch: Tile, rule: Rule, running: dict[int, tuple[int, int]]) -> dict[int, tuple[float, int]]:
    """For each cut, given as threshold and how many ties it takes here: their squared update, and where they end."""
    found: dict[int, tuple[float, int]] = {}
    energies = dict.fromkeys(running, 0.0)
    for tile in stretch.cut():
        scored = tile.score(rule)
        for cut, (threshold, wanted) in list(running.items()):
            tied, wanted, behind = kernels.follow_ties(
                scored.base, scored.tuned, scored.keys, np.uint32(threshold), wanted
            )
            energies[cut] += tied
            running[cut] = (threshold, wanted)
            if not wanted:
                found[cut] = (energies[cut], tile.start + behind)
                del running[cut]
        if not running:
            break
    return found
