"""What changed in answers and tokens: accuracy, transitions, drift, statistics.

The library calls: ``evaluate`` asks a model (``accuracy``), ``transitions`` follows facts from one table of answers to
another, ``drift`` compares next-token distributions of two checkpoints; it is imported when asked for, since it needs
torch.
"""

from typing import TYPE_CHECKING, Any

from knowshift.measure.accuracy import evaluate, summarise
from knowshift.measure.transitions import transitions

if TYPE_CHECKING:
    from knowshift.measure.token_drift import drift

__all__ = ["drift", "evaluate", "summarise", "transitions"]


def __getattr__(name: str) -> Any:
    if name != "drift":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from knowshift.measure.token_drift import drift

    return drift
