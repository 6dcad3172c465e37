"""Which part of the data an item belongs to: search, validation or test.

Candidates are made and compared on search, one is chosen on validation, and test is looked at once. The part follows
from a hash of what is asked and from nothing else: lines that are added or moved change no other line's part, what is
asked twice is in one part, and another seed never shows test to the search.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Literal, TypeVar, get_args

from knowshift.errors import InputError
from knowshift.seeds import derive

Part = Literal["search", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
# Validation begins and test begins where the hash, as a share of its range, has reached this.
_VALIDATION, _TEST = 0.5, 0.75
# Fewer in a part, and no interval worth the name comes of it.
LEAST = 10

T = TypeVar("T")


def folded(asked: str) -> str:
    """``asked`` without regard to capitals and white space, so that trivial variants are asked in one part."""
    return " ".join(asked.casefold().split())


def part_of(asked: str) -> Part:
    """The part of an item that asks this: search with a chance of 1/2, validation and test with 1/4 each."""
    place = derive(0, "repair", "part", folded(asked)) / 2**63
    return "search" if place < _VALIDATION else "validation" if place < _TEST else "test"


def split(items: Iterable[T], asked: Callable[[T], str]) -> dict[Part, list[T]]:
    """Items by part, in their own order; ``asked`` tells what one asks."""
    parts: dict[Part, list[T]] = {part: [] for part in PARTS}
    for item in items:
        parts[part_of(asked(item))].append(item)
    return parts


def drawn(items: Iterable[T], key: Callable[[T], Hashable], seed: int) -> list[T]:
    """Items in an order drawn under ``seed`` by ``key``: its first n are a sample, and among its first n + 1."""
    return sorted(items, key=lambda item: derive(seed, "repair", "order", key(item)))


def check_enough(parts: dict[Part, list[T]], source: str, what: str, *, least: int = LEAST) -> None:
    """Refuse parts that are too small to search, choose and test on.

    Args:
        source: where the items come from, and ``what`` they are, in the plural; for the message.

    Raises:
        InputError: in one sentence, with how many there are and about how many are needed.
    """
    sizes = [len(parts[part]) for part in PARTS]
    if min(sizes) < least:
        counts = _spoken([f"{size} for {part}" for part, size in zip(PARTS, sizes, strict=True)])
        raise InputError(
            f"{source}: {sum(sizes)} {what} are too few: {counts}, and each needs at least {least} "
            f"(about {6 * least} in all)"
        )


def _spoken(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
