"""Other weights put into a loaded model's own memory, and the tuned bits put back.

Knows pairs and where each lies in the model; not which method makes the new bits.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from knowshift.errors import InputError
from knowshift.weights import placing
from knowshift.weights.loaded import Loaded
from knowshift.weights.merge.method import Make
from knowshift.weights.pairing import Pair
from knowshift.weights.ranking import Ranking
from knowshift.weights.regions import unwrapped
from knowshift.weights.scores import Rule
from knowshift.weights.walk import Tile, walk


@dataclass(slots=True)
class Ground:
    """A region: its pairs, where each lies in the model (None: tied to another that does), what is known of it."""

    pairs: list[Pair]
    notes: list[str]
    places: list[torch.Tensor | None]
    rankings: dict[Rule, Ranking] = field(default_factory=dict)

    def ranking(self, rule: Rule) -> Ranking:
        if rule not in self.rankings:
            self.rankings[rule] = Ranking(self.pairs, rule)
        return self.rankings[rule]


class Swap:
    """What is in the model in place of the tuned bits, if anything.

    Args:
        live: the model itself, where it is its own tuned side: what is overwritten is then remembered.
    """

    def __init__(self, live: Loaded | None) -> None:
        self._live = live
        self._changed: tuple[Ground, set[tuple[int, int]]] | None = None

    def put(self, ground: Ground, make: Make) -> None:
        """Put what ``make`` gives into the model. Whatever happens, ``back`` is to be called after.

        What was put into it before may still be there, if the tuned side is on disk.
        """
        changed = self._changed[1] if self._changed else set()
        before = frozenset(changed)
        self._changed = ground, changed

        def one(tile: Tile) -> None:
            bits = make(tile)
            place = ground.places[tile.number]
            tuned = tile.pair.tuned_bits(tile.start, tile.stop)
            if place is None or (np.array_equal(bits, tuned) and (tile.number, tile.start) not in before):
                return
            if self._live is not None:
                self._live.remember(tile.pair.name, tile.start, tuned, bits)
            changed.add((tile.number, tile.start))
            placing.write(place, tile.start, bits, tile.pair.tuned.dtype)

        _over(ground, one, "weights into the model")

    def back(self) -> None:
        """Put the tuned bits back where they were changed; again, if an earlier call did not get to its end."""
        if self._changed is None:
            return
        ground, changed = self._changed

        def one(tile: Tile) -> None:
            place = ground.places[tile.number]
            if place is not None and (tile.number, tile.start) in changed:
                bits = tile.pair.tuned_bits(tile.start, tile.stop)
                placing.write(place, tile.start, bits, tile.pair.tuned.dtype)

        _over(ground, one, "tuned weights back")
        self._changed = None
        if self._live is not None:
            self._live.forget()


def verify(ground: Ground) -> None:
    """Make sure that the model holds the tuned side's stored weights.

    Raises:
        InputError: naming the first tensor that differs.
    """

    def differs(tile: Tile) -> bool:
        place = ground.places[tile.number]
        bits = tile.pair.tuned_bits(tile.start, tile.stop)
        return place is not None and not placing.holds(place, tile.start, bits, tile.pair.tuned.dtype)

    for tile, different in walk(ground.pairs, differs, "comparing"):
        if different:
            raise InputError(
                f"{tile.pair.tuned.file}: tensor {tile.pair.name!r} differs from the loaded model's: a sweep "
                "starts from the tuned model as stored"
            )


def _over(ground: Ground, work: Callable[[Tile], None], description: str) -> None:
    places = [place for place in ground.places if place is not None]
    placing.settle(places)
    for _ in walk(ground.pairs, work, description):
        pass
    placing.settle(places)


def where(places: placing.Places, pairs: list[Pair]) -> list[torch.Tensor | None]:
    """The place of each pair's tensor; None where a file stores under two names what the model ties."""
    found = [places.find(entry.name, entry.tuned.shape) for entry in pairs]
    times = Counter(placing.place_of(view) for view in found)

    def tied(entry: Pair, view: torch.Tensor) -> bool:
        place = placing.place_of(view)
        return times[place] > 1 and unwrapped(entry.name) != unwrapped(places.first.get(place, entry.name))

    return [None if tied(entry, view) else view for entry, view in zip(pairs, found, strict=True)]
