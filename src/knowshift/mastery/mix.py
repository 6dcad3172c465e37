"""Sets of several levels in given shares, and their order by mastery; knows tables, not files.

How many facts of each level a set of any size takes follows from the shares alone, so the smaller of two sets is the
beginning of the larger, and its part of one level is the set that this level alone would give.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction

import polars as pl

from knowshift.errors import InputError
from knowshift.mastery.levels import Curriculum, read_levels
from knowshift.mastery.select import check_holds, select

Mix = Mapping[int, Fraction]
_ENTRY = re.compile(r"([0-9-]+)(?::([0-9.]+))?", re.ASCII)


def read_mix(text: str) -> Mix:
    """The share of each level in a text such as ``0:0.5,2:0.5``.

    An entry is ``LEVEL:PARTS`` or, for several levels with as many parts each, ``LOW-HIGH:PARTS``; without ``:PARTS``
    it is one part. Parts are taken relative to their sum: ``0:1,2:3`` is a quarter of level 0, ``0-4`` a fifth of each.

    Raises:
        InputError: naming ``--mix``: another form, a level twice, or no parts.
    """
    parts: dict[int, Fraction] = {}
    for entry in text.split(","):
        found = _ENTRY.fullmatch(entry.strip())
        try:
            amount = Fraction((found and found[2]) or 1)
        except ValueError:
            found = None
        if not found:
            raise InputError(f"--mix {text}: {entry.strip()!r} is not LEVEL:PARTS, such as 0:0.5")
        for level in read_levels(found[1], flag="--mix"):
            if level in parts:
                raise InputError(f"--mix {text}: level {level} is named twice")
            parts[level] = amount
    if not all(parts.values()):
        raise InputError(f"--mix {text}: parts must be above 0; leave a level out that is not wanted")
    whole = sum(parts.values())
    return {level: parts[level] / whole for level in sorted(parts)}


def spelled_mix(mix: Mix) -> str:
    """Shares as ``read_mix`` reads them."""
    whole = math.lcm(*(share.denominator for share in mix.values()))
    return ",".join(f"{level}:{share * whole}" for level, share in mix.items())


def turns(mix: Mix) -> Iterator[int]:
    """The level of each place in a set, endlessly: after any number of places no level is a whole fact off its share.

    The quota method of apportionment (Balinski and Young, 1975): of the levels that stay below their share, rounded
    up, the one furthest behind goes next.
    """
    taken = dict.fromkeys(mix, 0)
    for places in itertools.count(1):
        open_to = [level for level in mix if taken[level] < mix[level] * places]
        level = max(open_to, key=lambda level: mix[level] / (taken[level] + 1))
        taken[level] += 1
        yield level


def counts(mix: Mix, size: int) -> dict[int, int]:
    """How many facts of each level a set of ``size`` takes; their sum is ``size``."""
    drawn = list(itertools.islice(turns(mix), size))
    return {level: drawn.count(level) for level in mix}


def select_mix(
    mastery: pl.DataFrame,
    *,
    mix: Mix,
    size: int,
    seed: int = 0,
    split: str = "train",
    domain: str = "id",
) -> pl.DataFrame:
    """Choose ``size`` facts for training, of each level its share.

    The part of a level is what ``select`` gives of it, so topics are balanced within each level. Levels take turns in
    the table's order.

    Args:
        mastery: the table ``score`` wrote.
        mix: shares by level, as from ``read_mix``.
        size: how many facts.
        seed: of the random order, as in ``select``.
        split: the split to choose from; a table that names no split is used whole.
        domain: the domain to choose from.

    Raises:
        InputError: if a level holds fewer facts than its share.
    """
    if size < 1:
        raise InputError(f"--size must be at least 1, not {size}")
    wanted = {level: count for level, count in counts(mix, size).items() if count}
    for level, count in wanted.items():
        check_holds(mastery, level, count, f"its {count} of --size {size}", split, domain)
    parts = {
        level: select(mastery, level=level, size=count, seed=seed, split=split, domain=domain).iter_slices(1)
        for level, count in wanted.items()
    }
    return pl.concat([next(parts[level]) for level in itertools.islice(turns(mix), size)])


def in_order(chosen: pl.DataFrame, curriculum: Curriculum) -> pl.DataFrame:
    """The same facts sorted by level; facts of one level keep their order."""
    return chosen.sort("level", descending=curriculum is Curriculum.known_first, maintain_order=True)
