"""Tensors in tiles, through a pool of threads, results in order.

Knows pairs and their sizes; not what is computed. Memory is a few tiles whatever the model's size, and the
results do not depend on the number of threads.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from knowshift.progress import bar
from knowshift.weights.pairing import Pair
from knowshift.weights.scores import TILE, Rule, Scored, score

S = TypeVar("S")
T = TypeVar("T")

_shared: ContextVar[Callable[[int], None] | None] = ContextVar("shared", default=None)  # the bar of ``one_bar``

_AHEAD = 64  # tiles asked for before they are computed: 16 MiB a side in 16-bit types
_ASK = 16  # tiles asked for at once within a stretch


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

    def cut(self) -> Iterator["Tile"]:
        """A longer stretch tile by tile, each asked for before it is needed."""
        for place, start in enumerate(range(self.start, self.stop, TILE)):
            if place % _ASK == 0:
                first = start + _ASK * TILE if place else start
                self.pair.prefetch(min(first, self.stop), min(start + 2 * _ASK * TILE, self.stop))
            yield Tile(self.number, self.pair, start, min(start + TILE, self.stop))


def tiles(pairs: Sequence[Pair], size: int | None = None) -> Iterator[Tile]:
    """Every element once, in order, at most ``size`` together; tensors without elements have no tile."""
    size = size or TILE
    for number, pair in enumerate(pairs):
        for start in range(0, pair.size, size):
            yield Tile(number, pair, start, min(start + size, pair.size))


def walk(pairs: Sequence[Pair], work: Callable[[Tile], T], description: str) -> Iterator[tuple[Tile, T]]:
    """``work`` on every tile, in parallel; yields its results in the order of the tiles."""
    with progress(description, sum(pair.size for pair in pairs)) as advance:
        for tile, result in in_order(_prefetched(tiles(pairs)), work):
            advance(tile.stop - tile.start)
            yield tile, result


def walk_stretches(
    stretches: Sequence[Tile],
    work: Callable[[Tile], T],
    description: str,
    *,
    ahead: Callable[[Tile], int] | None = None,
) -> Iterator[tuple[Tile, T]]:
    """The same for longer pieces, whose work reads them tile by tile.

    ``ahead``: in a shared bar, for how many walks a stretch counts when it is done; else one.
    """
    shared = _shared.get() is not None
    with progress(description, sum(stretch.stop - stretch.start for stretch in stretches)) as advance:
        for stretch, result in in_order(iter(stretches), work):
            advance((stretch.stop - stretch.start) * (ahead(stretch) if shared and ahead else 1))
            yield stretch, result


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of its own, or a part of the one that ``one_bar`` shows."""
    shared = _shared.get()
    if shared is not None:
        yield shared
        return
    with bar(description, total) as advance:
        yield advance


@contextmanager
def one_bar(description: str, elements: int, walks: int) -> Iterator[None]:
    """Let ``walks`` walks over ``elements`` inside of it advance one bar."""
    with bar(description, elements * walks) as advance:
        token = _shared.set(advance)
        try:
            yield
        finally:
            _shared.reset(token)


def threads() -> int:
    """How many threads walk: the cores this process may use, up to 16, which is what memory can feed."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 16)
    return min(os.cpu_count() or 1, 16)


def _prefetched(coming: Iterator[Tile]) -> Iterator[Tile]:
    """The same tiles, each asked for before it is needed."""
    asked: deque[Tile] = deque()
    for tile in coming:
        tile.pair.prefetch(tile.start, tile.stop)
        asked.append(tile)
        if len(asked) >= _AHEAD:
            yield asked.popleft()
    yield from asked


def in_order(coming: Iterator[S], work: Callable[[S], T]) -> Iterator[tuple[S, T]]:
    """``work`` on each of ``coming``, in parallel; results in order."""
    workers = threads()
    running: deque[tuple[S, Future[T]]] = deque()
    with ThreadPoolExecutor(workers, "tiles") as pool:
        try:
            while True:
                while len(running) < 4 * workers and (item := next(coming, None)) is not None:
                    running.append((item, pool.submit(work, item)))
                if not running:
                    return
                item, future = running.popleft()
                yield item, future.result()
        finally:
            for _, future in running:
                future.cancel()
