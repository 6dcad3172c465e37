"""How often each pair of values occurs: what 16-bit weights amount to, whatever their number.

Two 16-bit numbers that training moved a little apart take few different values together: millions of elements are
some ten thousand distinct pairs (base, tuned), and any ranking, sum or count over elements is one over distinct
pairs with how often each occurs. So both checkpoints are read once, and all later passes run over the census, which
lies in a temporary file of about a fiftieth of their size. The file has no name: when the process ends, however it
ends, it is gone.

Pairs are kept up to a common sign, on which no score depends. Stretches whose pairs are too many (models far apart,
32-bit types), or for whose census there is no room, are read again, tile by tile.
"""

import errno
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from knowshift.compiled import jit
from knowshift.weights.bits import Bits, steady
from knowshift.weights.pairing import Pair
from knowshift.weights.scores import TILE, Rule, Scored, score_entry
from knowshift.weights.walk import Tile, tiles

STRETCH = 1 << 24  # elements counted together
COUNTED = ("BF16", "F16")
_LEAST = 1 << 16  # elements below which counting does not pay
_WORTH = 8  # elements to a distinct pair, at least
_FAR = 32  # one in so many elements may have moved further than the counters reach

# Counters lie by how many representable numbers the tuned value is above base, -128 to 127, then by base.
_REACH, _BASES, _BLOCK = 128, 15, 6


@dataclass(frozen=True, slots=True)
class Entry:
    """Distinct pairs of stored values and how often each occurs.

    Attributes:
        base, tuned: stored bits; base without its sign, tuned with its sign relative to base's.
        counts: uint32, how often the two stand together.
    """

    base: Bits
    tuned: Bits
    counts: npt.NDArray[np.uint32]


class _Counters(threading.local):
    """A thread's own; pages that no pair of values falls into are never touched."""

    def __init__(self) -> None:
        self.table = np.zeros(2 * _REACH << _BASES, np.uint32)
        self.blocks = np.zeros(self.table.size >> _BLOCK, np.bool_)


class Census:
    """The distinct pairs of values in each stretch of ``pairs``, counted when a stretch is first asked for.

    Attributes:
        stretches: all elements, cut into pieces of at most ``STRETCH``, none of which spans two tensors.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.stretches = list(tiles(pairs, STRETCH))
        self._places: dict[tuple[int, int], tuple[int, int] | None] = {}
        self._file = tempfile.TemporaryFile(prefix="knowshift-")  # noqa: SIM115 (open as long as this lives)
        self._end = 0
        self._lock = threading.Lock()
        self._counters = _Counters()

    def parts(self, stretch: Tile, rule: Rule) -> Iterator[Scored]:
        """The scored elements of a stretch: each distinct pair once with its count, or all of them tile by tile.

        The arrays of a part are good until the next.
        """
        entry = None if rule.rank == "random" else self.entry(stretch)
        if entry is None:
            for tile in stretch.cut():
                yield tile.score(rule)
            return
        for start in range(0, entry.counts.size, TILE):
            part = slice(start, start + TILE)
            yield score_entry(entry.base[part], entry.tuned[part], entry.counts[part], stretch.pair.tuned.dtype, rule)

    def counted(self, stretch: Tile) -> bool:
        """Whether a stretch has been counted, so that it need not be read again."""
        return self._places.get((stretch.number, stretch.start)) is not None

    def entry(self, stretch: Tile) -> Entry | None:
        """The distinct pairs of a stretch; None where they are too many to be worth it."""
        key = (stretch.number, stretch.start)
        if key not in self._places:
            self._places[key] = self._keep(self._count(stretch))
        place = self._places[key]
        if place is None:
            return None
        offset, size = place
        pairs, counts = np.frombuffer(os.pread(self._file.fileno(), 8 * size, offset), np.uint32).reshape(2, size)
        return Entry((pairs >> np.uint32(16)).astype(np.uint16), pairs.astype(np.uint16), counts)

    def _keep(self, counted: npt.NDArray[np.uint32] | None) -> tuple[int, int] | None:
        if counted is None:
            return None
        with self._lock:
            offset, self._end = self._end, self._end + counted.nbytes
        left = counted.data.cast("B")
        try:
            while left:
                left = left[os.pwrite(self._file.fileno(), left, offset + counted.nbytes - left.nbytes) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return None  # without room for it the stretch is read again
        return offset, counted.shape[1]

    def _count(self, stretch: Tile) -> npt.NDArray[np.uint32] | None:
        """Distinct pairs, base in the high half of a number, and below them their counts."""
        pair, size = stretch.pair, stretch.stop - stretch.start
        if pair.tuned.dtype not in COUNTED or size < _LEAST:
            return None
        counters = self._counters
        far = np.empty(size // _FAR, np.uint32)
        used = 0
        for tile in stretch.cut():
            left, right = pair.base_bits(tile.start, tile.stop), pair.tuned_bits(tile.start, tile.stop)
            used = count_pairs(steady(left), steady(right), counters.table, counters.blocks, far, used)
            if used < 0:
                break
        near = distinct(counters.table, counters.blocks)
        found = np.empty((2, near + max(used, 0)), np.uint32)
        empty(counters.table, counters.blocks, found)
        if used < 0 or _WORTH * found.shape[1] > size:
            return None
        found[0, near:], found[1, near:] = far[:used], 1
        return found


@jit
def count_pairs(base: Any, tuned: Any, table: Any, blocks: Any, far: Any, used: Any) -> Any:
    """Count every pair of ``base`` and ``tuned``, uint16, in ``table``, or note it in ``far`` where it is off it.

    Returns how many of ``far`` are used, from ``used`` on; -1 if there is no room.
    """
    room = np.uint64(far.size)
    end = np.uint64(used)
    for i in range(base.size):
        magnitude = np.uint32(base[i]) & np.uint32(0x7FFF)
        value = np.uint32(tuned[i]) ^ (np.uint32(base[i]) & np.uint32(0x8000))
        step = value - magnitude + np.uint32(_REACH)
        if step < np.uint32(2 * _REACH):
            place = np.uint64((step << np.uint32(_BASES)) | magnitude)
            table[place] += np.uint32(1)
            blocks[place >> np.uint64(_BLOCK)] = True
        elif end == room:
            return -1
        else:
            far[end] = (magnitude << np.uint32(16)) | value
            end += np.uint64(1)
    return np.int64(end)


@jit
def distinct(table: Any, blocks: Any) -> Any:
    """How many counters are not zero."""
    total = 0
    for block in range(blocks.size):
        if blocks[block]:
            for place in range(block << _BLOCK, (block + 1) << _BLOCK):
                total += table[place] != 0
    return total


@jit
def empty(table: Any, blocks: Any, found: Any) -> None:
    """Move what was counted to the front of ``found``: pairs in its first row, counts in its second."""
    end = 0
    for block in range(blocks.size):
        if blocks[block]:
            blocks[block] = False
            for place in range(block << _BLOCK, (block + 1) << _BLOCK):
                if table[place]:
                    magnitude = np.uint32(place & ((1 << _BASES) - 1))
                    value = magnitude + np.uint32(place >> _BASES) - np.uint32(_REACH)
                    found[0, end] = (magnitude << np.uint32(16)) | value
                    found[1, end] = table[place]
                    table[place] = 0
                    end += 1
