"""For methods that must know a whole tensor before they can make a tile of it.

Tiles come tensor by tensor, so what was worked out of one is kept while its tiles are made and dropped after;
memory does not grow with the number of tensors.
"""

import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from knowshift.weights.pairing import Pair
from knowshift.weights.walk import Tile, in_order, tiles

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_KEPT = 2  # the tensor whose tiles are being made, and the next one, which another thread may have begun


class Latest(Generic[K, T]):
    """What ``build`` made of the last keys asked for; it runs once for each, whichever threads ask."""

    def __init__(self, build: Callable[[K], T]) -> None:
        self._build = build
        self._held: dict[K, T] = {}
        self._lock = threading.Lock()

    def __call__(self, key: K) -> T:
        with self._lock:
            if key not in self._held:
                self._held[key] = self._build(key)
                if len(self._held) > _KEPT:
                    del self._held[next(iter(self._held))]
            return self._held[key]


def over(pair: Pair, work: Callable[[Tile], T]) -> Iterator[tuple[Tile, T]]:
    """``work`` on every tile of one tensor, in parallel; yields its results in the order of the tiles."""
    parts = tiles([pair])
    if (first := next(parts, None)) is None:
        return
    yield first, work(first)  # which is all of most tensors, and needs no threads
    yield from in_order(parts, work)
