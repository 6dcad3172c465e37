"""A loaded model walked through restorations and interpolations, in place and back, bit for bit.

Evaluating many fractions needs no checkpoint written or loaded: the weights are put into the model's own
parameters, and on leaving a ``with`` block the tuned bits are put back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from knowshift.errors import InputError
from knowshift.weights.bits import Bits
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.merge.interpolate import Interpolate
from knowshift.weights.pairing import Pair, pair
from knowshift.weights.ranking import Ranking, exact
from knowshift.weights.regions import unwrapped
from knowshift.weights.scores import Arithmetic, Of, Order, Rank, Rule
from knowshift.weights.taken import take
from knowshift.weights.walk import Tile, walk

_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@dataclass(frozen=True, slots=True)
class Info:
    """What is in the model now.

    Attributes:
        method: ``relative``, ``random`` ..., or ``interpolate``.
        fraction: of the ranked elements restored; None for interpolation.
        alpha: of the interpolation; None for a restoration.
        count: elements that were set (restored elements, or all of the region).
        removed_norm_share: squared norm of (tuned - these weights), measured on the stored weights, as a share of
            the squared norm of (tuned - base).
    """

    method: str
    fraction: float | None
    alpha: float | None
    count: int
    removed_norm_share: float


class Sweep:
    """A loaded tuned model whose region can be restored in place.

    Args:
        model: the tuned model, on any device. In another type than the checkpoint's, it gets the stored weights
            cast to its own, as loading would cast them.
        base, tuned: the two checkpoint folders.
        region, arithmetic, seed: as in ``restore``.

    Raises:
        InputError: if the checkpoints do not belong together, or ``model`` does not hold the tuned weights.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        base: Path,
        tuned: Path,
        *,
        region: str = "blocks",
        arithmetic: Arithmetic = "float32",
        seed: int = 0,
    ) -> None:
        self._arithmetic: Arithmetic = arithmetic
        self._seed = seed
        self.pairs, self.notes = pair(Checkpoint.open(base), Checkpoint.open(tuned), region)
        self._flat = _parameters(model, self.pairs)
        self._rankings: dict[Rule, Ranking] = {}
        self._busy = False
        self._verify()

    @contextmanager
    def restored(self, rank: Rank, fraction: float | str, order: Order = "top", of: Of = "all") -> Iterator[Info]:
        """Within the block the model is what ``restore`` with these settings would write."""
        ranking = self._ranking(Rule(rank, order, of, self._arithmetic, self._seed))
        (chosen,) = take(ranking, ranking.cuts([exact(fraction)]))

        def make(tile: Tile) -> Bits:
            return chosen.restored(tile, tile.score(ranking.rule))

        energy = float(ranking.energy.sum())
        share = min(chosen.energy / energy, 1.0) if energy else 0.0
        with self._holding(make):
            yield Info(rank, float(exact(fraction)), None, chosen.cut.count, share)

    @contextmanager
    def interpolated(self, alpha: float | None = None, *, removed_share: float | None = None) -> Iterator[Info]:
        """Within the block the region is base + alpha * (tuned - base); see ``merge.interpolate``."""
        mix = Interpolate(alpha=alpha, removed_share=removed_share).solve(self.pairs, self._seed)
        count = sum(entry.size for entry in self.pairs)
        with self._holding(mix.bits):
            yield Info("interpolate", None, mix.alpha, count, mix.removed_norm_share)

    @contextmanager
    def _holding(self, make: Callable[[Tile], Bits]) -> Iterator[None]:
        if self._busy:
            raise RuntimeError("one restoration at a time: leave the first with block before the next")
        self._busy = True
        try:
            self._put(make)
            yield
        finally:
            self._put(lambda tile: tile.pair.tuned_bits(tile.start, tile.stop))
            self._busy = False

    def _put(self, make: Callable[[Tile], Bits]) -> None:
        def put(tile: Tile) -> None:
            target = self._flat[tile.number][tile.start : tile.stop]
            target.copy_(_tensor(make(tile), tile.pair.tuned.dtype))

        for _ in walk(self.pairs, put, "weights into the model"):
            pass

    def _verify(self) -> None:
        def differs(tile: Tile) -> bool:
            here = self._flat[tile.number][tile.start : tile.stop]
            stored = _tensor(tile.pair.tuned_bits(tile.start, tile.stop), tile.pair.tuned.dtype)
            return not torch.equal(here, stored.to(here.dtype).to(here.device))

        for tile, different in walk(self.pairs, differs, "comparing"):
            if different:
                raise InputError(
                    f"{tile.pair.tuned.file}: tensor {tile.pair.name!r} differs from the loaded model's: a sweep "
                    "starts from the tuned model as stored"
                )

    def _ranking(self, rule: Rule) -> Ranking:
        if rule not in self._rankings:
            self._rankings[rule] = Ranking(self.pairs, rule)
        return self._rankings[rule]


def _parameters(model: torch.nn.Module, pairs: list[Pair]) -> list[torch.Tensor]:
    """The model's own storage of each pair's tensor, as one dimension."""
    named = dict(model.named_parameters(remove_duplicate=False))
    bare: dict[str, list[str]] = {}
    for name in named:
        bare.setdefault(unwrapped(name), []).append(name)
    flat = []
    for entry in pairs:
        names = [entry.name] if entry.name in named else bare.get(unwrapped(entry.name), [])
        found = named[names[0]] if len(names) == 1 else None
        if found is None or tuple(found.shape) != entry.tuned.shape or not found.is_contiguous():
            raise InputError(
                f"{entry.tuned.file}: the loaded model has no parameter {entry.name!r} of shape "
                f"{list(entry.tuned.shape)}"
            )
        flat.append(found.detach().view(-1))
    return flat


def _tensor(bits: Bits, dtype: str) -> torch.Tensor:
    signed = np.int32 if bits.itemsize == 4 else np.int16
    if not bits.flags.writeable or not bits.flags.aligned:
        bits = bits.copy()  # torch has no read-only tensors
    return torch.from_numpy(bits.view(signed)).view(_TYPES[dtype])
