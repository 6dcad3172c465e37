"""The five mastery levels of the paper (section 2), and how several are named."""

import re
from enum import StrEnum

from knowshift.errors import InputError

LEVELS = (0, 1, 2, 3, 4)
NAMES = ("never", "up to a quarter", "up to a half", "up to three quarters", "more than three quarters")


class Curriculum(StrEnum):
    """In which order of mastery a set is written."""

    known_first = "known-first"
    unknown_first = "unknown-first"


def level(hits: int, trials: int) -> int:
    """0 for no hit; 1, 2, 3, 4 for a share of hits in (0, 1/4], (1/4, 1/2], (1/2, 3/4], (3/4, 1].

    Whole numbers all the way, so a share of exactly one half is level 2 whatever the number of trials.
    """
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"{hits} hits in {trials} trials")
    return -(-4 * hits // trials)


def read_levels(text: str, *, flag: str = "--level") -> tuple[int, ...]:
    """The levels that ``2``, ``1-3`` or ``0,2`` names, rising.

    Raises:
        InputError: naming ``flag``: no such level, or another form.
    """
    found: set[int] = set()
    for entry in text.split(","):
        if not (ends := re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", entry.strip(), re.ASCII)):
            raise InputError(f"{flag} must be 0 to 4, several as 1-3 or 0,2; not {text}")
        low, high = int(ends[1]), int(ends[2] or ends[1])
        if not LEVELS[0] <= low <= high <= LEVELS[-1]:
            raise InputError(f"{flag} must be 0 to 4, not {entry.strip()}")
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def spelled(levels: tuple[int, ...]) -> str:
    """Levels as ``read_levels`` reads them: ``2``, ``1-3``, ``0,2``."""
    if len(levels) > 2 and levels == tuple(range(levels[0], levels[-1] + 1)):
        return f"{levels[0]}-{levels[-1]}"
    return ",".join(str(level) for level in levels)
