"""A global, exact ranking of every element of a region, without sorting and without storing it.

A key's high 16 bits are counted in a first pass over both checkpoints; a second pass counts the low 16 bits
within the few bins where a wanted fraction falls (rankings in bfloat16 have no low bits and skip it). That
gives each fraction its exact threshold, however many fractions there are, in memory that does not grow.

How often the files are read depends on the stored type alone. 16-bit weights take few different values: they are
counted once (``census``), and every pass runs over the counts. 32-bit weights hardly ever repeat, counts would be as
large as the files: every pass reads these again, to rank, to find exact thresholds, to cut, and for a diff's null.

Ties: every element above the threshold is taken, and among those equal to it the first in (tensor order,
row-major position), until exactly floor(n * fraction) are.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from knowshift.errors import InputError
from knowshift.weights import kernels
from knowshift.weights.census import Census
from knowshift.weights.pairing import Pair
from knowshift.weights.scores import Rule, infinite_key
from knowshift.weights.strict import quoted
from knowshift.weights.walk import Tile, walk_stretches

Counts = npt.NDArray[np.int64]
Energies = npt.NDArray[np.float64]
T = TypeVar("T")

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
_LONGEST = 40

NOTHING = 1 << 31  # a threshold above every key
_HIGH = 1 << 15  # bins of the high half of a 31-bit key
_FINITE = 0x7F80  # bins of finite floats


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a ranking is cut to take ``count`` elements.

    Attributes:
        count: how many are taken.
        threshold: keys above it are taken.
        ties: how many of the keys equal to it are taken, in order.
        held: sum of the scores of the taken elements (for change scores, largest first; else 0).
    """

    count: int
    threshold: int
    ties: int
    held: float


def exact(fraction: float | str | Decimal | Fraction, flag: str = "--fraction") -> Fraction:
    """A fraction as written in decimals: 0.03 is 3/100, not the float beside it. What is below 1e-40 is 0.

    Raises:
        InputError: naming ``flag`` if it is no number from 0 to 1, or a very long one.
    """
    if isinstance(fraction, Fraction) and 0 <= fraction <= 1:
        return fraction
    text = str(fraction).strip()
    if _NUMBER.fullmatch(text) and len(text) <= _LONGEST:
        value = Decimal(text)
        if 0 <= value <= 1:  # asked of the decimal: as fractions, those with huge exponents fill the memory
            return Fraction(value) if value and value.adjusted() >= -40 else Fraction(0)
    raise InputError(f"{flag} {quoted(fraction, str)}: must be a number from 0 to 1, in {_LONGEST} characters at most")


def spelled(fraction: float | str) -> str:
    """How a fraction is written in column and folder names: as typed, or the shortest decimal form."""
    if isinstance(fraction, str):
        text = fraction.strip().lstrip("+-")
        return f"0{text}" if text.startswith(".") else text  # never a hidden folder
    short = f"{fraction:g}"
    return short if float(short) == fraction else repr(fraction)


class Histogram:
    """Keys counted by their high 16 bits, and the sum of the scores in each bin. Counts may be expected ones."""

    def __init__(self, counts: Counts | Energies, sums: Energies) -> None:
        self.counts, self.sums = counts, sums
        # How many keys, and how much score, lie in higher bins.
        self.above = np.concatenate([np.cumsum(counts[::-1])[::-1][1:], [0]])
        self.sums_above = np.concatenate([np.cumsum(sums[::-1])[::-1][1:], [0.0]])

    @classmethod
    def of(cls, table: Counts) -> "Histogram":
        """From what ``kernels.tally`` counted, its lanes added up: counts and sums of the low 16 bits."""
        high = np.arange(_FINITE)
        edges = (high.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
        # A float is linear in its low bits as long as sign and exponent stay.
        step = np.ldexp(1.0, np.maximum(high >> 7, 1) - 150)
        counts, sums = table[:_HIGH, 0].copy(), np.zeros(_HIGH)
        sums[:_FINITE] = counts[:_FINITE] * edges + table[:_FINITE, 1] * step
        return cls(counts, sums)

    @property
    def total(self) -> int:
        """How many keys were counted."""
        return int(self.counts.sum())

    def bin_of(self, count: int) -> int:
        """The bin that holds the ``count``-th largest key, ``count`` from 1."""
        reached = self.above + self.counts
        return int(np.flatnonzero(reached >= min(count, reached[0]))[-1])  # expected counts may sum to a little less


class Tables:
    """One integer table per thread, added up at the end: the same whatever thread counted what."""

    def __init__(self, make: Callable[[], Counts]) -> None:
        self._make = make
        self._all: list[Counts] = []
        self._own = threading.local()
        self._lock = threading.Lock()

    def mine(self) -> Counts:
        """This thread's table."""
        if not hasattr(self._own, "table"):
            self._own.table = self._make()
            with self._lock:
                self._all.append(self._own.table)
        table: Counts = self._own.table
        return table

    def total(self) -> Counts:
        """All tables added up."""
        if not self._all:
            return self._make()
        result = self._all[0]
        for table in self._all[1:]:
            result += table
        return result


class Ranking:
    """Every element of ``pairs`` ranked under ``rule``. Building it is the first pass.

    ``walks`` is how many walks over it are planned, for a shared bar: where equal elements were counted, all but the
    first take no time.

    Attributes:
        elements: how many elements the region has.
        population: how many are ranked: all, or those that changed.
        changed: changed elements of each pair.
        energy: squared norm of each pair's update.
        histogram: of the keys.
    """

    def __init__(self, pairs: Sequence[Pair], rule: Rule, *, walks: int = 1) -> None:
        self.pairs = list(pairs)
        self.rule = rule
        self._walks = walks
        self.elements = sum(pair.size for pair in self.pairs)
        self.changed = np.zeros(len(self.pairs), np.int64)
        self.energy = np.zeros(len(self.pairs))
        self.census = Census(self.pairs)
        bad = np.zeros((len(self.pairs), 3), np.int64)
        tables = Tables(tally_table)

        def first(stretch: Tile) -> tuple[int, Energies]:
            changed, sums = 0, np.zeros(4)
            for part in self.census.parts(stretch, rule):
                sums += kernels.weigh(part.base, part.tuned, part.keys, part.weights, np.uint32(infinite_key(rule)))
                kernels.tally(part.keys, part.weights, tables.mine())
                changed += int(part.weights.sum(where=part.base_bits != part.tuned_bits))
            return changed, sums

        for stretch, (changed, (energy, *faults)) in self.walk(first, f"ranking by {rule.rank}", ahead=self._walks):
            self.changed[stretch.number] += changed
            self.energy[stretch.number] += energy
            bad[stretch.number] += np.array(faults, np.int64)
        _refuse(self.pairs, bad)
        self.histogram = Histogram.of(tables.total().sum(axis=0))
        self.population = self.histogram.total
        self._cuts: dict[int, Cut] = {0: Cut(0, NOTHING, 0, 0.0)}

    def walk(self, work: Callable[[Tile], T], description: str, *, ahead: int = 0) -> Iterator[tuple[Tile, T]]:
        """``work`` on every stretch of the census, in parallel, results in order."""
        count = lambda stretch: ahead if self.census.counted(stretch) else 1  # noqa: E731
        return walk_stretches(self.census.stretches, work, description, ahead=count)

    def count(self, fraction: Fraction) -> int:
        """floor(n * fraction) of the ranked elements."""
        return self.population * fraction.numerator // fraction.denominator

    def cuts(self, fractions: Iterable[Fraction]) -> list[Cut]:
        """Where to cut for each fraction; a second pass if any of them needs low bits."""
        counts = [self.count(fraction) for fraction in fractions]
        new = [count for count in dict.fromkeys(counts) if count not in self._cuts]
        bins = sorted({self.histogram.bin_of(count) for count in new})
        if bins:
            fine = self._coarse(bins) if self.rule.coarse else self._refined(bins)
            for count in new:
                high = self.histogram.bin_of(count)
                self._cuts[count] = self._cut(count, high, fine[bins.index(high)])
        return [self._cuts[count] for count in counts]

    def _coarse(self, bins: list[int]) -> Counts:
        fine = np.zeros((len(bins), 1), np.int64)
        fine[:, 0] = self.histogram.counts[bins]
        return fine

    def _refined(self, bins: list[int]) -> Counts:
        slots = np.full(kernels.BINS, -1, np.int16)
        slots[bins] = np.arange(len(bins))
        tables = Tables(lambda: np.zeros((len(bins), kernels.BINS), np.int64))

        def second(stretch: Tile) -> None:
            for part in self.census.parts(stretch, self.rule):
                kernels.refine(part.keys, part.weights, slots, tables.mine())

        for _ in self.walk(second, "exact thresholds"):
            pass
        return tables.total()

    def _cut(self, count: int, high: int, fine: Counts) -> Cut:
        wanted = count - int(self.histogram.above[high])
        reached = np.cumsum(fine[::-1])[::-1]
        low = int(np.flatnonzero(reached >= wanted)[-1])
        ties = wanted - int(reached[low] - fine[low])
        held = 0.0
        if self.rule.order == "top" and self.rule.rank in ("relative", "absolute"):
            keys = (np.uint32(high << 16) + np.arange(low, fine.size, dtype=np.uint32)).view(np.float32)
            taken = fine[low:].copy()
            taken[0] = ties
            held = float(self.histogram.sums_above[high] + taken @ keys.astype(np.float64))
        return Cut(count, (high << 16) + low, ties, held)


def tally_table() -> Counts:
    """An empty table for ``kernels.tally``."""
    return np.zeros((kernels.LANES, kernels.BINS, 2), np.int64)


def _refuse(pairs: Sequence[Pair], bad: Counts) -> None:
    for pair, (in_base, in_tuned, overflow) in zip(pairs, bad, strict=True):
        for tensor, count in ((pair.base, in_base), (pair.tuned, in_tuned)):
            if count:
                raise InputError(
                    f"{tensor.file}: tensor {tensor.name!r} holds {count} NaN or infinite values, "
                    "which cannot be ranked"
                )
        if overflow:
            raise InputError(
                f"{pair.tuned.file}: tensor {pair.name!r}: the change of {overflow} elements is beyond the "
                "range of float32, so it cannot be ranked"
            )
