"""For methods that set whole tensors back to base: the others stay tuned, and no bit is computed."""

from collections.abc import Sequence

from knowshift.errors import InputError
from knowshift.weights.bits import Bits
from knowshift.weights.merge.method import Make
from knowshift.weights.walk import Tile


def resetting(chosen: Sequence[bool]) -> Make:
    """The new bits of a tile: base's in tensors whose place in ``chosen`` is set."""

    def make(tile: Tile) -> Bits:
        read = tile.pair.base_bits if chosen[tile.number] else tile.pair.tuned_bits
        return read(tile.start, tile.stop)

    return make


def parts(flag: str, text: str) -> list[str]:
    """The comma-separated parts of an option."""
    found = [part.strip() for part in str(text).split(",")]
    if not all(found):
        raise InputError(f"{flag} {text!r}: expected names or numbers, separated by commas")
    return found


def ranges(flag: str, text: str) -> set[int]:
    """The numbers in a list such as ``0-3,12``, both ends included."""
    numbers: set[int] = set()
    for part in parts(flag, text):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 13:
            raise InputError(f"{flag} {text}: {part!r} is neither a number nor a range such as 0-3")
        start, stop = int(first), int(last or first)
        if start > stop or stop > 1_000_000:
            raise InputError(f"{flag} {text}: {part!r} is not a range of layers")
        numbers.update(range(start, stop + 1))
    return numbers
