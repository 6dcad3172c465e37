"""What may be tried: a candidate is a way to make the bits of every tile, in memory and on disk the same.

Knows pairs, methods of ``weights.merge`` and where bits go; not what a candidate is worth.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from knowshift.weights.bits import Bits
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.merge import method
from knowshift.weights.merge.interpolate import mixing
from knowshift.weights.merge.meter import Meter
from knowshift.weights.merge.method import Make, Method
from knowshift.weights.output import write_checkpoints
from knowshift.weights.pairing import Pair, pair
from knowshift.weights.ranking import Ranking, exact
from knowshift.weights.scores import Order, Rank, Rule
from knowshift.weights.sweep import Info, Sweep
from knowshift.weights.taken import take
from knowshift.weights.walk import Tile

REGION = "all"
INTERPOLATE = "interpolate"
# What is known, and how much of it: the paper's restoration, its controls, interpolation, and rivals as published.
ALPHAS = (0.8, 0.65, 0.5, 0.4, 0.3)
# By relative change as the paper has it, in its region; by absolute change anywhere: harm in few weights is large.
RESTORED: tuple[tuple[Rank, str, tuple[float, ...]], ...] = (
    ("relative", "blocks", (0.01, 0.03, 0.05, 0.1, 0.2, 0.4, 0.6)),
    ("absolute", REGION, (0.01, 0.03, 0.1, 0.2, 0.4)),
    ("random", "blocks", (0.3, 0.5)),
    ("base-magnitude", "blocks", (0.2,)),
)
RIVALS: tuple[tuple[str, dict[str, float]], ...] = (
    ("dare", {"drop": 0.5}),
    ("ties-trim", {"keep": 0.5}),
    ("ties-trim", {"keep": 0.2}),
    ("fapm", {"keep": 0.5}),
    ("dg-hard", {"scale": 1.0}),
    ("hft", {}),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One repair of the tuned model.

    Attributes:
        name: of this one alone; it names files, so letters, digits, ``.`` and ``-``.
        method: what it is a case of, such as ``relative``, ``interpolate``, ``coefficients``.
        how: makes the new bits of a tile; ``prepare`` gives the same ones whenever it is asked.
        settings: what sets it apart from others of its method, as JSON holds it.
        region: the tensors that it may change; the others stay tuned.
        seed: of what it draws.
    """

    name: str
    method: str
    how: Method
    settings: Mapping[str, float | str] = field(default_factory=dict)
    region: str = REGION
    seed: int = 0

    def within(self, sweep: Sweep) -> AbstractContextManager[Info]:
        """Within the block the sweep's model is this candidate; after it, the tuned bits are back."""
        return sweep.made(self.method, self.how, region=self.region, seed=self.seed)

    def write(self, base: Path, tuned: Path, out: Path, card: str) -> list[tuple[Pair, Meter]]:
        """Write the checkpoint folder ``out``, with the bits that ``within`` puts into the model.

        Args:
            base, tuned: checkpoint folders.
            card: the text of its model card.

        Returns:
            The tensors of the region, each with what tells how much of its update went.

        Raises:
            InputError: if ``out`` is not ours to replace or the disk has no room.
        """
        left, right = Checkpoint.open(base), Checkpoint.open(tuned)
        pairs, _ = pair(left, right, self.region)
        prepared = self.how.prepare(pairs, self.seed)
        meters = [Meter(prepared) for _ in pairs]

        def make(tile: Tile) -> list[Bits]:
            return [meters[tile.number](tile)]

        write_checkpoints(right, left, pairs, [out], lambda: [card], make, "writing the repaired model")
        return list(zip(pairs, meters, strict=True))


@dataclass(frozen=True, slots=True)
class Restoration:
    """A share of the elements set back to base, as ``knowshift restore`` does.

    Attributes:
        rank, order: which go first, see ``scores.Rule``.
        fraction: exactly floor(n * fraction) elements.
    """

    rank: Rank
    fraction: float
    order: Order = "top"

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Make:
        """The new bits of a tile."""
        ranking = Ranking(pairs, Rule(self.rank, self.order, "all", "float32", seed))
        (chosen,) = take(ranking, ranking.cuts([exact(self.fraction)]))

        def make(tile: Tile) -> Bits:
            return chosen.restored(tile, tile.score(ranking.rule))

        return make


@dataclass(frozen=True, slots=True)
class Interpolation:
    """base + alpha * (tuned - base), 16-bit weights rounded at random: to nearest, small updates are all or none.

    Attributes:
        alpha: 0 is base, 1 is tuned.
    """

    alpha: float

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Make:
        """The new bits of a tile."""
        return mixing(self.alpha, seed)


def known(seed: int = 0) -> list[Candidate]:
    """The candidates that nothing is learned for."""
    found = [
        Candidate(f"{INTERPOLATE}-{alpha:g}", INTERPOLATE, Interpolation(alpha), {"alpha": alpha}, seed=seed)
        for alpha in ALPHAS
    ]
    for rank, region, fractions in RESTORED:
        for fraction in fractions:
            how, settings = Restoration(rank, fraction), {"fraction": fraction}
            found.append(Candidate(f"{rank}-{fraction:g}", rank, how, settings, region, seed))
    for name, settings in RIVALS:
        label = "-".join([name, *(f"{value:g}" for value in settings.values())])
        found.append(Candidate(label, name, method(name, **settings), settings, seed=seed))
    return found
