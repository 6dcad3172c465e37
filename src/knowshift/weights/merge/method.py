"""What a method of merging is: options checked when it is made, and the new bits of any tile."""

from collections.abc import Callable, Sequence
from typing import Protocol

from knowshift.errors import InputError
from knowshift.weights import kernels
from knowshift.weights.bits import Bits, Values, decode
from knowshift.weights.pairing import Pair
from knowshift.weights.walk import Tile

Option = float | str | bool | None
Make = Callable[[Tile], Bits]


class Method(Protocol):
    """Options as attributes; the function that ``prepare`` returns gives the same bits in whatever order it is asked.

    ``prepare`` may read both checkpoints, and what it returns may read whole tensors again (see ``tensors``), but
    neither keeps more than a fixed part of the model in memory.
    """

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Make:
        """A function that gives the new bits of a tile, in the tuned tensor's type."""
        ...


def finite_values(tile: Tile, left: Bits, right: Bits) -> tuple[Values, Values]:
    """Both sides of a tile as float32.

    Raises:
        InputError: naming the tensor if either side holds NaN or infinite values.
    """
    dtype = tile.pair.tuned.dtype
    base, tuned = decode(left, dtype), decode(right, dtype)
    _, bad_base, bad_tuned = kernels.survey(base, tuned)
    for tensor, count in ((tile.pair.base, bad_base), (tile.pair.tuned, bad_tuned)):
        if count:
            raise InputError(
                f"{tensor.file}: tensor {tensor.name!r} holds NaN or infinite values ({count} of elements "
                f"{tile.start} to {tile.stop}), which cannot be merged"
            )
    return base, tuned


def share(flag: str, value: float, *, below_one: bool = False) -> float:
    """``value`` if it is a number from 0 to 1."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= 1 or (below_one and number == 1):
        bounds = "from 0 to less than 1" if below_one else "from 0 to 1"
        raise InputError(f"{flag} {value}: must be a number {bounds}")
    return number
