"""Figures in words: percentages, points, intervals, and sentences that claim only what an interval resolves.

Knows nothing of files or charts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Interval":
        """From ``{"value", "low", "high"}`` as ``metrics.json`` holds it."""
        return cls(float(entry["value"]), float(entry["low"]), float(entry["high"]))

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies wholly above or below zero, else 0."""
        return (self.low > 0) - (self.high < 0)


def percent(share: float, digits: int = 1) -> str:
    """``0.312`` as ``31.2%``."""
    return f"{_signed(share * 100, digits, plus=False)}%"


def points(difference: float) -> str:
    """``0.021`` as ``+2.1 points``."""
    return f"{_signed(difference * 100, 1)} points"


def percent_range(interval: Interval) -> str:
    """``31.2% (28.0 to 34.5)``."""
    low, high = (_signed(end * 100, 1, plus=False) for end in (interval.low, interval.high))
    return f"{percent(interval.value)} ({low} to {high})"


def points_range(interval: Interval) -> str:
    """``+2.1 points (0.4 to 3.9)``."""
    low, high = (_signed(end * 100, 1, plus=False) for end in (interval.low, interval.high))
    return f"{points(interval.value)} ({low} to {high})"


def count(number: int, noun: str = "", plural: str = "") -> str:
    """``1,020`` or, with a noun, ``1 fact`` and ``1,020 facts``."""
    if not noun:
        return f"{number:,}"
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def nats(value: float) -> str:
    """A divergence: ``0.83 nats``; small ones keep two significant digits."""
    return f"{value:.2f} nats" if value >= 0.1 or value == 0 else f"{value:.2g} nats"


def listing(items: list[str]) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def fraction(value: float) -> str:
    """``0.03`` as ``3%``, without digits that say nothing."""
    return f"{value * 100:.4g}%"


def capital(text: str) -> str:
    """The text with its first letter in upper case, the rest as it stands."""
    return text[:1].upper() + text[1:]


def _signed(value: float, digits: int, *, plus: bool = True) -> str:
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{MINUS if value < 0 else '+' if plus else ''}{text}"
