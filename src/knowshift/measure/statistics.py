"""Wilson's interval, McNemar's exact test, and the headline accuracy with its bootstrap interval.

The mean that is resampled is the paper's headline figure (section 3): within a group (a domain) every stratum
(a mastery level) counts the same, and so does every group. Knows nothing of models.
"""

from typing import Literal

import numpy as np
import polars as pl
from scipy.stats import binomtest, norm

from knowshift.measure.bootstrap import CONFIDENCE, RESAMPLES, Estimate, bootstrap_mean, paired_difference
from knowshift.measure.pairs import pair
from knowshift.measure.strata import with_strata

__all__ = [
    "MATCHERS",
    "RESAMPLES",
    "Estimate",
    "Match",
    "bootstrap_mean",
    "headline",
    "headline_difference",
    "mcnemar_exact",
    "micro",
    "micro_difference",
    "paired_difference",
    "wilson",
]

Match = Literal["contains", "strict"]
MATCHERS: tuple[Match, ...] = ("contains", "strict")


def wilson(hits: int, trials: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """A proportion with Wilson's score interval, which is sound for few trials and near 0 and 1.

    Raises:
        ValueError: without trials.
    """
    if trials < 1 or not 0 <= hits <= trials:
        raise ValueError(f"not a proportion: {hits} of {trials}")
    share = hits / trials
    z = float(norm.ppf(0.5 + confidence / 2))
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * float(np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)))
    # At the ends the bound is the share itself; rounding must not put the share outside its interval.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == trials else min(1.0, centre + half)
    return Estimate(share, low, high)


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test: were losses and gains as likely? 1 if nothing changed."""
    changed = lost + gained
    return float(binomtest(lost, changed, 0.5).pvalue) if changed else 1.0


def headline(
    answers: pl.DataFrame, match: Match = "contains", *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Mean over domains of the unweighted mean over levels, with a stratified 95 % bootstrap interval.

    Args:
        answers: a table of answers, of which domain, level and the matcher's column are read. In a domain
            where no fact has a level, the mean is the plain one.
        match: the matcher.
        seed: of the resampling.
        resamples: how many.
    """
    table = with_strata(answers)
    return bootstrap_mean(table[match].to_numpy(), table["stratum"], table["domain"], seed=seed, resamples=resamples)


def headline_difference(
    before: pl.DataFrame,
    after: pl.DataFrame,
    match: Match = "contains",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Headline of ``after`` minus that of ``before`` on the same facts, by a paired stratified bootstrap.

    Args:
        before: a table of answers, of which id, domain, level and the matcher's column are read. Filtered to
            one domain, it gives that domain's difference of means over levels.
        after: answers to the same facts.
        match: the matcher.
        seed: of the resampling.
        resamples: how many.

    Raises:
        InputError: if the two tables do not hold the same facts.
    """
    table = with_strata(pair(before, after, (match,)))
    old, new = table[f"{match}_before"].to_numpy(), table[f"{match}_after"].to_numpy()
    return paired_difference(old, new, table["stratum"], table["domain"], seed=seed, resamples=resamples)


def micro(answers: pl.DataFrame, match: Match = "contains", *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Mean over domains of the share of all facts answered, with a 95 % bootstrap interval.

    Every fact of a domain counts the same, so unlike in ``headline`` a level of two or three facts cannot decide
    the figure.

    Args:
        answers: a table of answers, of which domain and the matcher's column are read.
        match: the matcher.
        seed: of the resampling.
        resamples: how many.
    """
    return bootstrap_mean(answers[match].to_numpy(), groups=answers["domain"], seed=seed, resamples=resamples)


def micro_difference(
    before: pl.DataFrame,
    after: pl.DataFrame,
    match: Match = "contains",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """``micro`` of ``after`` minus that of ``before`` on the same facts, by a paired bootstrap.

    Raises:
        InputError: if the two tables do not hold the same facts.
    """
    table = pair(before, after, (match,))
    old, new = table[f"{match}_before"].to_numpy(), table[f"{match}_after"].to_numpy()
    return paired_difference(old, new, groups=table["domain"], seed=seed, resamples=resamples)
