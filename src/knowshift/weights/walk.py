"""Tensors in tiles, through a pool of threads, results in order.

Knows pairs and their sizes; not what is computed. Memory is a few tiles whatever the model's size, and the
results do not depend on the number of threads.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from knowshift.progress import bar
from knowshift.weights.pairing import Pair
from knowshift.weights.scores import TILE, Rule, Scored, score

T = TypeVar("T")

_AHEAD = 64  # tiles asked for before they are computed: 16 MiB a side in 16-bit types


@dataclass(frozen=True, slots=True)
class Tile:
    """Elements ``start`` to ``stop`` of the tensor ``pairs[number]``."""

    number: int
    pair: Pair
    start: int
    stop: int

    def score(self, rule: Rule) -> Scored:
        """Read both sides and rank them."""
        left = self.pair.base_bits(self.start, self.stop)
        right = self.pair.tuned_bits(self.start, self.stop)
        return score(left, right, self.pair.tuned.dtype, rule, self.pair.name, self.start)


def tiles(pairs: Sequence[Pair]) -> Iterator[Tile]:
    """Every element once, in order; tensors without elements have no tile."""
    for number, pair in enumerate(pairs):
        for start in range(0, pair.size, TILE):
            yield Tile(number, pair, start, min(start + TILE, pair.size))


def walk(pairs: Sequence[Pair], work: Callable[[Tile], T], description: str) -> Iterator[tuple[Tile, T]]:
    """``work`` on every tile, in parallel; yields its results in the order of the tiles."""
    total = sum(pair.size for pair in pairs)
    with bar(description, total) as advance:
        for tile, result in _ordered(pairs, work):
            advance(tile.stop - tile.start)
            yield tile, result


def threads() -> int:
    """How many threads walk: the cores this process may use, up to 16, which is what memory can feed."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 16)
    return min(os.cpu_count() or 1, 16)


def _ordered(pairs: Sequence[Pair], work: Callable[[Tile], T]) -> Iterator[tuple[Tile, T]]:
    workers = threads()
    ahead = tiles(pairs)
    coming: deque[Tile] = deque()
    running: deque[tuple[Tile, Future[T]]] = deque()
    with ThreadPoolExecutor(workers, "tiles") as pool:
        try:
            while True:
                while len(coming) < _AHEAD and (tile := next(ahead, None)):
                    tile.pair.prefetch(tile.start, tile.stop)
                    coming.append(tile)
                while coming and len(running) < 4 * workers:
                    tile = coming.popleft()
                    running.append((tile, pool.submit(work, tile)))
                if not running:
                    return
                tile, future = running.popleft()
                yield tile, future.result()
        finally:
            for _, future in running:
                future.cancel()
