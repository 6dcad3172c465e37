"""Training sets of a plan: which sizes a level, or a mix of levels, can have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knowshift.mastery.mix import counts, read_mix
from knowshift.study.plan import Plan


@dataclass(frozen=True, slots=True)
class Set:
    """A training set of the plan: one level, or a mix of several.

    Attributes:
        asked: sizes of the plan that this one stands for; several where a level holds too few facts.
        size: how many facts; ``all`` until mastery is known.
    """

    level: int | None
    mix: str | None
    asked: tuple[int | str, ...]
    size: int | str

    @property
    def labels(self) -> dict[str, Any]:
        """Its columns of the index."""
        size = self.size if isinstance(self.size, int) else None
        return {"level": self.level, "mix": self.mix, "asked_size": str(self.asked[0]), "size": size}


def sized(
    plan: Plan, level: int | None, mix: str | None, held: Mapping[int, int] | None
) -> tuple[list[Set], list[tuple[Set, str]]]:
    """The sets of one level or mix, and those that there cannot be, each with the reason.

    Args:
        held: how many facts each level holds; None while that is not known.
    """
    sets = [Set(level, mix, (size,), size) for size in plan.sizes]
    if held is None:
        return sets, []
    most = held[level] if level is not None else _most(mix or "", held)
    what = f"level {level}" if level is not None else f"mix {mix}"
    holds = f"{what} holds {most} facts" if level is not None else f"{what} can be filled with {most} facts"
    made: dict[int, Set] = {}
    lacking: list[tuple[Set, str]] = []
    for one in sets:
        size = most if one.size == "all" else int(one.size)
        if size > most and plan.short_levels == "largest":
            size = most
        if not 0 < size <= most:
            lacking.append((one, holds))
        elif size in made:
            first = made[size]
            lacking.append((one, f"{holds}; size {first.asked[0]} is trained on these already"))
            made[size] = Set(level, mix, (*first.asked, *one.asked), size)
        else:
            made[size] = Set(level, mix, one.asked, size)
    return list(made.values()), lacking


def _most(mix: str, held: Mapping[int, int]) -> int:
    """The largest set that a mix can be filled to."""
    shares = read_mix(mix)
    low, high = 0, sum(held[level] for level in shares)
    while low < high:
        middle = (low + high + 1) // 2
        enough = all(count <= held[level] for level, count in counts(shares, middle).items())
        low, high = (middle, high) if enough else (low, middle - 1)
    return low
