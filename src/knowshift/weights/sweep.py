"""A loaded model walked through restorations and rivals, in place and back, bit for bit.

Evaluating many fractions needs no checkpoint written or loaded: the weights are put into the model's own
parameters, and on leaving a ``with`` block the tuned bits are put back. What the model then is, is exactly what
loading the written checkpoint gives.

Memory beside the model: where the tuned checkpoint is on disk, its bits are read from there again and nothing is
held. Without one, the old bits of the elements that differ are held while a block lasts, with one bit an element for
their places. A base on disk is read in tiles; a loaded one is the caller's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch

from knowshift.errors import InputError
from knowshift.weights import placing
from knowshift.weights.bits import Bits
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.loaded import Loaded
from knowshift.weights.merge import method
from knowshift.weights.merge.interpolate import Interpolate
from knowshift.weights.merge.meter import Meter
from knowshift.weights.merge.method import Make, Method, Option
from knowshift.weights.pairing import Pair, pair
from knowshift.weights.ranking import exact
from knowshift.weights.scores import Arithmetic, Of, Order, Rank, Rule
from knowshift.weights.swap import Ground, Swap, verify, where
from knowshift.weights.taken import take
from knowshift.weights.walk import Tile

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Info:
    """What is in the model now.

    Attributes:
        method: ``relative``, ``random`` ..., or the name of a rival, such as ``interpolate``.
        fraction: of the ranked elements restored; None for what is no restoration.
        alpha: of an interpolation, else None.
        count: elements that were set (restored elements; all of the region for an interpolation; for other rivals
            those that no longer have the tuned bits).
        removed_norm_share: squared norm of (tuned - these weights), measured on the stored weights, as a share of
            the squared norm of (tuned - base).
    """

    method: str
    fraction: float | None
    alpha: float | None
    count: int
    removed_norm_share: float


class Sweep:
    """A loaded tuned model that can be restored, interpolated or pruned in place.

    Args:
        model: the tuned model, on any device or spread over several. In another type than the checkpoint's, it
            gets the stored weights cast to its own, as loading would cast them.
        base: the base model's checkpoint folder, or the base model itself, loaded.
        tuned: the tuned model's checkpoint folder. Without one ``model`` itself is the tuned side, in its own type.
        region, arithmetic, seed: as in ``restore``; region and seed may be others in each step.

    While a sweep is in use nothing else may change the weights: rankings are made once.

    Raises:
        InputError: if the two do not belong together, ``model`` does not hold the tuned weights, or a tensor is
            not in memory as a whole.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        base: Path | torch.nn.Module,
        tuned: Path | None = None,
        *,
        region: str = "blocks",
        arithmetic: Arithmetic = "float32",
        seed: int = 0,
    ) -> None:
        if base is model:
            raise InputError("the base of a sweep is the tuned model itself")
        self._arithmetic: Arithmetic = arithmetic
        self._seed = seed
        self._region = region
        self._base = Loaded(base) if isinstance(base, torch.nn.Module) else Checkpoint.open(Path(base))
        self._live = Loaded(model) if tuned is None else None
        self._tuned = self._live or Checkpoint.open(Path(tuned or ""))
        self._places = placing.Places(model)
        self._grounds: dict[str, Ground] = {}
        self._busy = False
        self._swap = Swap(self._live)
        self._ground(region)

    @property
    def pairs(self) -> list[Pair]:
        """The tensors of the sweep's own region."""
        return self._ground(self._region).pairs

    @property
    def notes(self) -> list[str]:
        """What the user should know of them, see ``pairing.pair``."""
        return self._ground(self._region).notes

    @contextmanager
    def restored(
        self,
        rank: Rank,
        fraction: float | str,
        order: Order = "top",
        of: Of = "all",
        *,
        region: str | None = None,
        seed: int | None = None,
    ) -> Iterator[Info]:
        """Within the block the model is what ``restore`` with these settings would write."""
        ground = self._ground(region)
        ranking = ground.ranking(Rule(rank, order, of, self._arithmetic, self._seed if seed is None else seed))
        (chosen,) = take(ranking, ranking.cuts([exact(fraction)]))

        def make(tile: Tile) -> Bits:
            return chosen.restored(tile, tile.score(ranking.rule))

        energy = float(ranking.energy.sum())
        share = min(chosen.energy / energy, 1.0) if energy else 0.0
        with self._holding(ground, make):
            yield Info(rank, float(exact(fraction)), None, chosen.cut.count, share)

    @contextmanager
    def interpolated(
        self,
        alpha: float | None = None,
        *,
        removed_share: float | None = None,
        region: str | None = None,
        seed: int | None = None,
    ) -> Iterator[Info]:
        """Within the block the region is base + alpha * (tuned - base); see ``merge.interpolate``."""
        ground = self._ground(region)
        wanted = Interpolate(alpha=alpha, removed_share=removed_share)
        mix = wanted.solve(ground.pairs, self._seed if seed is None else seed)
        count = sum(entry.size for entry in ground.pairs)
        with self._holding(ground, mix.bits):
            yield Info("interpolate", None, mix.alpha, count, mix.removed_norm_share)

    @contextmanager
    def merged(
        self, name: str, *, region: str | None = None, seed: int | None = None, **options: Option
    ) -> Iterator[Info]:
        """Within the block the model is what ``merge`` with this method and options would write, on this region."""
        with self.made(name, method(name, **options), region=region, seed=seed) as info:
            yield info

    @contextmanager
    def made(self, name: str, how: Method, *, region: str | None = None, seed: int | None = None) -> Iterator[Info]:
        """Within the block the region has the bits that ``how`` makes; ``name`` is for ``Info`` alone."""
        ground = self._ground(region)
        meter = Meter(how.prepare(ground.pairs, self._seed if seed is None else seed))
        with self._holding(ground, meter):
            yield Info(name, None, None, meter.moved, meter.removed_norm_share)

    @contextmanager
    def moving(self, *, region: str | None = None, seed: int | None = None) -> Iterator[Callable[[Method], None]]:
        """Within the block each call of what it yields puts other bits into the region; after it the tuned are back.

        Raises:
            InputError: if the tuned model is not on disk.
        """
        if self._live is not None:
            raise InputError("weights are moved step by step only where the tuned checkpoint is on disk")
        ground = self._ground(region)
        own = self._seed if seed is None else seed

        def put(how: Method) -> None:
            self._swap.put(ground, how.prepare(ground.pairs, own))

        with self._holding(ground, None):
            yield put

    def places(self, region: str | None = None) -> list[tuple[Pair, torch.Tensor]]:
        """The tensors of a region, each with where it lies in the model; of tied ones each has the same place."""
        return [(entry, self._places.find(entry.name, entry.tuned.shape)) for entry in self._ground(region).pairs]

    def holding(self, name: str, **settings: Any) -> AbstractContextManager[Info]:
        """``restored``, ``interpolated`` or ``merged`` by name: a rank, or a method of ``merge``, and its settings."""
        if name in get_args(Rank):
            return self.restored(name, **settings)  # type: ignore[arg-type]
        return self.interpolated(**settings) if name == "interpolate" else self.merged(name, **settings)

    def through(self, steps: Iterable[tuple[str, Mapping[str, Any]]], evaluate: Callable[[Info], T]) -> list[T]:
        """Walk the model through ``steps``, each a name and settings as ``holding`` takes them.

        Returns:
            What ``evaluate`` made of each. An error in it ends the walk, with the tuned bits put back.
        """
        results = []
        for name, settings in steps:
            with self.holding(name, **settings) as info:
                results.append(evaluate(info))
        return results

    @contextmanager
    def _holding(self, ground: Ground, make: Make | None) -> Iterator[None]:
        if self._busy:
            raise RuntimeError("one restoration at a time: leave the first with block before the next")
        self._swap.back()  # only something if that was itself interrupted
        self._busy = True
        try:
            if make is not None:
                self._swap.put(ground, make)
            yield
        finally:
            self._busy = False
            self._swap.back()

    def _ground(self, region: str | None) -> Ground:
        region = region or self._region
        if region not in self._grounds:
            if self._busy:
                raise RuntimeError("one restoration at a time: leave the first with block before the next")
            self._swap.back()
            pairs, notes = pair(self._base, self._tuned, region)
            ground = Ground(pairs, notes, where(self._places, pairs))
            if self._live is None:
                verify(ground)
            self._grounds[region] = ground
        return self._grounds[region]
