"""The race: many candidates on a few facts and items, the better half on twice as many, and so on.

Successive halving (Jamieson and Talwalkar 2016) for two aims. Who goes on is told by two things: the chance to be the
answer (most knowledge within the bound on the task), and, for the other half of the places, the frontier by
log-probabilities. With few items nearly all candidates are within the bound and the most generous would win; their
log-probabilities tell already how much of the task each gives up, so the whole trade-off stays in the race.

Arithmetic on scores: measures nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from knowshift.measure.bootstrap import Floats
from knowshift.repair.frontier import layers, spread
from knowshift.repair.scores import Scores
from knowshift.seeds import derive

# Who is left at the end, on the whole of search.
KEPT = 8
# Facts and items of the first round are no fewer, where there are so many.
LEAST = 16
DRAWS = 500
BASE, TUNED = "base", "tuned"


@dataclass(frozen=True, slots=True)
class Round:
    """How many candidates are measured, on the first so many facts and items of search."""

    candidates: int
    facts: int
    items: int


def rounds(candidates: int, facts: int, items: int, *, kept: int = KEPT, least: int = LEAST) -> list[Round]:
    """The rounds of a race: each has half the candidates of the one before and twice its facts and items.

    The last has all facts and items. All rounds together cost about as much as measuring ``kept`` candidates on
    everything once a round.
    """
    halvings = max(0, math.ceil(math.log2(candidates / kept))) if candidates else 0
    return [
        Round(
            candidates if number == 0 else max(min(kept, candidates), math.ceil(candidates / 2**number)),
            *(min(total, max(least, math.ceil(total / 2 ** (halvings - number)))) for total in (facts, items)),
        )
        for number in range(halvings + 1)
    ]


def survivors(scores: Scores, drop: float, kept: int, *, seed: int = 0) -> list[str]:
    """The ``kept`` candidates that go on, in the order of their columns.

    Args:
        scores: of this round: the tuned model, the candidates, and maybe the base, which is none.
        drop: how much lower than the tuned model's the mean task score may be.
        kept: how many.
        seed: of the draws.
    """
    names = [name for name in scores.names if name not in (BASE, TUNED)]
    if len(names) <= kept:
        return names
    chance = dict(zip(names, chances(scores, names, drop, seed=seed), strict=True))
    likely = sorted((name for name in names if chance[name] > 0), key=lambda name: -chance[name])
    taken = likely[: math.ceil(kept / 2)]
    others = [name for name in names if name not in taken]
    taken += _on_the_frontier(scores, others, kept - len(taken))
    return [name for name in names if name in taken]


def chances(scores: Scores, names: Sequence[str], drop: float, *, seed: int = 0, draws: int = DRAWS) -> Floats:
    """(names,) the chance of each to be the answer: most knowledge within the bound, or else least task lost.

    Facts and items are weighted anew in each draw (Bayesian bootstrap, Rubin 1981), alike for all, so that what
    candidates have in common decides nothing. Candidates that score alike share a win.
    """
    columns = [scores.place(name) for name in names]
    generator = np.random.default_rng(derive(seed, "repair", "race"))
    weighted = []
    for values in (scores.knowledge[:, columns], scores.task[:, columns] - scores.task[:, [scores.place(TUNED)]]):
        weights = generator.standard_exponential((draws, len(values)))
        weighted.append(weights / weights.sum(1, keepdims=True) @ values)
    knowledge, change = weighted
    within = change >= -drop - 1e-12
    # Where nobody is within the bound, the least loss wins.
    merit = np.where(within, knowledge, -np.inf)
    merit = np.where(within.any(1, keepdims=True), merit, change)
    wins = merit >= merit.max(1, keepdims=True) - 1e-12
    share: Floats = (wins / wins.sum(1, keepdims=True)).mean(0)
    return share


def _on_the_frontier(scores: Scores, names: list[str], count: int) -> list[str]:
    """``count`` of ``names``, the best layers first, and of a layer those that stand most alone."""
    columns = [scores.place(name) for name in names]
    both = (scores.knowledge_log_prob, scores.task_log_prob)
    points = np.stack([values[:, columns].mean(0) for values in both], axis=1)
    layer, apart = layers(points), np.zeros(len(names))
    for number in np.unique(layer):
        apart[layer == number] = spread(points[layer == number])
    order = sorted(range(len(names)), key=lambda index: (layer[index], -apart[index]))
    return [names[index] for index in order[:count]]
