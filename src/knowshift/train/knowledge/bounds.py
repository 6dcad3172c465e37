"""How much may be lost: two bounds, what a scoring found, and whether it passes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from knowshift.errors import InputError


@dataclass(frozen=True, slots=True)
class Score:
    """What one scoring found.

    Attributes:
        step: updates made so far.
        kl: KL(now || base) in nats, mean over the measured tokens.
        lost: share of the known facts whose answer is no longer given; None for a text.
        log_prob: mean change of the measured tokens' log-probability, in nats.
        weights: ``||W - W0|| / ||W0||`` over all weights; None where it cannot be told.
        names: the questions of the facts that are lost.
    """

    step: int
    kl: float
    lost: float | None
    log_prob: float
    weights: float | None
    names: tuple[str, ...] = field(default=(), compare=False)

    def row(self) -> dict[str, float]:
        """The figures for a trainer's log, by name."""
        values = {
            "knowledge_kept": None if self.lost is None else 1 - self.lost,
            "knowledge_lost": self.lost,
            "knowledge_kl": self.kl,
            "knowledge_log_prob": self.log_prob,
            "knowledge_weight_change": self.weights,
        }
        return {name: value for name, value in values.items() if value is not None}


def logged(history: Iterable[Mapping[str, float]]) -> list[Score]:
    """The scorings in a trainer's log, without names."""
    return [
        Score(
            int(row["step"]),
            row["knowledge_kl"],
            row.get("knowledge_lost"),
            row["knowledge_log_prob"],
            row.get("knowledge_weight_change"),
        )
        for row in history
        if "knowledge_kl" in row
    ]


@dataclass(frozen=True, slots=True)
class Passed:
    """A bound that a scoring passed: which, where, and by what."""

    step: int
    measure: str
    value: float
    bound: float

    def __str__(self) -> str:
        what = "KL to the base" if self.measure == "kl" else "the share of known facts that are lost"
        return f"{what} is {self.value:.4g} at step {self.step}, above the bound of {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The highest KL to the base, in nats per token, and the highest share of known facts lost; None is no bound."""

    kl: float | None = None
    lost: float | None = None

    def passed(self, score: Score) -> Passed | None:
        """The first bound that ``score`` is above; a figure that is no number is above every bound."""
        for measure, value, bound in (("kl", score.kl, self.kl), ("lost", score.lost, self.lost)):
            if bound is not None and value is not None and not value <= bound:
                return Passed(score.step, measure, value, bound)
        return None


def parse_bounds(text: str, flag: str = "--stop-on-drift") -> Bounds:
    """Bounds from ``kl=0.1``, ``lost=0.2``, both with a comma between, or a bare number, which is ``kl``.

    Raises:
        InputError: naming ``flag``: another measure, one twice, or a number out of range.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        name = name.strip() if equals else "kl"
        if name not in ("kl", "lost"):
            raise InputError(f"{flag} {text}: {name!r} is unknown; give kl=NATS, lost=SHARE, or both with a comma")
        if name in found:
            raise InputError(f"{flag} {text}: {name} is given twice")
        try:
            found[name] = float(number)
        except ValueError as error:
            raise InputError(f"{flag} {text}: {number.strip()!r} is no number") from error
        if not (math.isfinite(found[name]) and found[name] >= 0) or (name == "lost" and found[name] >= 1):
            raise InputError(
                f"{flag} {text}: {name} must be " + ("from 0 to below 1" if name == "lost" else "0 or more")
            )
    return Bounds(**found)
