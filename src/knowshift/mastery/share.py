"""How common is a level, when the search for it stopped as soon as enough was found?

Each topic was looked through in random order until its ``found``-th fact of the level, without replacement. So not
the number found but the number looked at is what chance decided (inverse sampling): found/looked errs upward, and
an interval for a fixed number looked at does not hold. (found - 1)/(looked - 1) does not err (Haldane, "On a method
of estimating frequencies", Biometrika 33, 1945); nor does the estimate of its variance below (Salehi and Seber, "A
new proof of Murthy's estimator which applies to sequential sampling", Australian and New Zealand Journal of
Statistics 43, 2001), but for topics with one or two found, where it errs upward. Topics are strata, weighed by
their facts. How many a topic had to find does not spoil this: it follows from what the topics hold, not from the
order.

The interval is that of Korn and Graubard ("Confidence intervals for proportions with small expected number of
positive counts estimated from survey data", Survey Methodology 24, 1998): the one of Clopper and Pearson for as many
independent looks as would have that variance. Knows counts only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import beta


@dataclass(frozen=True, slots=True)
class Looked:
    """What the search saw of one topic.

    Attributes:
        facts: how many facts the topic holds.
        looked: how many of them were looked at, in random order, up to the last one counted in ``found``.
        found: how many of those have the level; ``looked`` ends at the last of them, unless all were looked at.
    """

    facts: int
    looked: int
    found: int


@dataclass(frozen=True, slots=True)
class Share:
    """An estimated share of facts, 0 to 1, with the limits of its confidence interval."""

    value: float
    low: float
    high: float


def estimate_share(topics: Sequence[Looked], *, confidence: float = 0.95) -> Share:
    """The share of a level among all facts of ``topics``, each looked at until it had ``found``.

    A topic of which all was looked at is known, and adds nothing to the width.

    Raises:
        ValueError: if a topic was not looked at: nothing is known of it.
    """
    if not topics or not all(0 < topic.looked <= topic.facts for topic in topics):
        raise ValueError("every topic must have been looked at")
    total = sum(topic.facts for topic in topics)
    parts = [(topic.facts / total, *_moments(topic)) for topic in topics]
    value = min(1.0, sum(weight * share for weight, share, _ in parts))
    if all(topic.looked == topic.facts for topic in topics):
        return Share(value, value, value)
    variance = sum(weight**2 * own for weight, _, own in parts)
    looks = float(sum(topic.looked for topic in topics))
    if 0 < value < 1 and variance > 0:
        looks = value * (1 - value) / variance
    tail = (1 - confidence) / 2
    hits = value * looks
    low = float(beta.ppf(tail, hits, looks - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, looks - hits)) if looks > hits else 1.0
    return Share(value, low, high)


def _moments(topic: Looked) -> tuple[float, float]:
    """A topic's share and the variance of that estimate, both free of bias (see the module)."""
    facts, looked, found = topic.facts, topic.looked, topic.found
    if looked == facts:
        return found / facts, 0.0
    share = (found - 1) / (looked - 1) if looked > 1 else 1.0
    # The square of the true share, free of bias, from the chance that two facts both have the level.
    both = (found - 1) * (found - 2) / ((looked - 1) * (looked - 2)) if found > 2 else 0.0
    return share, max(0.0, share**2 - both * (facts - 1) / facts - share / facts)
