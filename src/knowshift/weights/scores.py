"""By which score elements are ranked, and the keys of one tile under it.

Knows arrays and a rule; not where tensors come from or how keys become a ranking.
"""

import threading
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from knowshift.errors import InputError
from knowshift.seeds import derive
from knowshift.weights import kernels
from knowshift.weights.bits import Bits, Values, decode

Keys = npt.NDArray[np.uint32]

Rank = Literal["relative", "absolute", "base-magnitude", "random"]
Order = Literal["top", "bottom"]
Of = Literal["all", "changed"]
Arithmetic = Literal["float32", "bfloat16"]

TILE = 1 << 17  # elements: two sides, their values and keys stay in a core's cache
_CODES = {
    "relative": kernels.RELATIVE,
    "absolute": kernels.ABSOLUTE,
    "base-magnitude": kernels.BASE_MAGNITUDE,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Which elements are restored first.

    Attributes:
        rank: ``relative`` = |tuned - base| / (|base| + 1e-8), the paper's (section 5); ``absolute`` =
            |tuned - base|; ``base-magnitude`` = smallest |base| first; ``random`` = a hash of seed, tensor name
            and position, so that it needs no state.
        order: ``top`` as above, ``bottom`` the other way round.
        of: rank ``all`` elements, or only those ``changed`` (whose stored bits differ).
        arithmetic: ``float32``, or ``bfloat16`` where values and every intermediate result are rounded to
            bfloat16, as the paper's released code computes on models loaded so.
        seed: of the random ranking.
    """

    rank: Rank = "relative"
    order: Order = "top"
    of: Of = "all"
    arithmetic: Arithmetic = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for flag, kind in (("rank", Rank), ("order", Order), ("of", Of), ("arithmetic", Arithmetic)):
            if getattr(self, flag) not in get_args(kind):
                raise InputError(f"--{flag} {getattr(self, flag)}: must be one of {', '.join(get_args(kind))}")

    @property
    def coarse(self) -> bool:
        """Whether keys are told apart by their high 16 bits alone."""
        return self.arithmetic == "bfloat16" and self.rank != "random"

    @property
    def descending(self) -> bool:
        """Whether the largest score comes first."""
        return (self.order == "top") != (self.rank == "base-magnitude")


@dataclass(frozen=True, slots=True)
class Scored:
    """Elements with their values and keys. The arrays are a thread's own scratch, good until it scores again.

    Attributes:
        base_bits, tuned_bits: stored bits.
        base, tuned: the same as float32.
        keys: see ``kernels``.
        weights: uint32, how many elements each stands for: one, unless equal ones were counted.
    """

    base_bits: Bits
    tuned_bits: Bits
    base: Values
    tuned: Values
    keys: Keys
    weights: npt.NDArray[np.uint32]


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.base = np.empty(TILE, np.float32)
        self.tuned = np.empty(TILE, np.float32)
        self.keys = np.empty(TILE, np.uint32)


_scratch = _Scratch()
_ones = np.ones(TILE, np.uint32)


def score(base_bits: Bits, tuned_bits: Bits, dtype: str, rule: Rule, name: str, start: int) -> Scored:
    """Values and keys of a tile of at most ``TILE`` elements beginning at element ``start`` of tensor ``name``.

    Both sides are bits of ``dtype``.
    """
    size = tuned_bits.size
    base = decode(base_bits, dtype, _scratch.base[:size])
    tuned = decode(tuned_bits, dtype, _scratch.tuned[:size])
    keys = fill_keys(base, tuned, rule, name, start, _scratch.keys[:size])
    if rule.of == "changed":
        keys[base_bits == tuned_bits] = kernels.EXCLUDED
    return Scored(base_bits, tuned_bits, base, tuned, keys, _ones[:size])


def score_entry(base_bits: Bits, tuned_bits: Bits, counts: npt.NDArray[np.uint32], dtype: str, rule: Rule) -> Scored:
    """The same for at most ``TILE`` pairs of values that occur ``counts`` times somewhere; no random ranking."""
    scored = score(base_bits, tuned_bits, dtype, rule, "", 0)
    return replace(scored, weights=counts)


def fill_keys(base: Values, tuned: Values, rule: Rule, name: str, start: int, keys: Keys) -> Keys:
    """Keys of values under ``rule``: the larger, the earlier restored; see ``kernels``."""
    if rule.rank == "random":
        kernels.random_keys(np.uint64(stream(rule.seed, "random", name)), np.uint64(start), keys)
    else:
        kernels.change_keys(base, tuned, _CODES[rule.rank], rule.arithmetic == "bfloat16", keys)
    if not rule.descending:
        np.subtract(np.uint32(_top(rule)), keys, out=keys)
    return keys


def key_score(key: int, rule: Rule) -> float:
    """The score that ``key`` stands for; for a random ranking its draw in [0, 1)."""
    if not rule.descending:
        key = _top(rule) - key
    if rule.rank == "random":
        return key / 2.0**31
    return float(np.uint32(key).view(np.float32))


def infinite_key(rule: Rule) -> int:
    """The key of a change that overflowed; one that no element has where scores are no computed changes."""
    if rule.rank not in ("relative", "absolute"):
        return 1 << 31
    return 0x7F800000 if rule.descending else _top(rule) - 0x7F800000


def _top(rule: Rule) -> int:
    """The largest key a rule can give, from which ascending rankings count down."""
    return 0x7FFF0000 if rule.coarse else 0x7FFFFFFF


def stream(seed: int, *parts: object) -> int:
    """The start of a counter-based stream of random numbers."""
    return derive(seed, "weights", *parts)
