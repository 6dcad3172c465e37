"""The choice and its proof: most knowledge within the bound on validation, then one look at test.

A gain is claimed only where an exact test on facts that had no part in the choice supports it, so that where nothing
was lost, or nothing came back, a claim is false in at most 5 % of cases (2.5 % in either direction). Arithmetic on
scores: measures nothing.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from knowshift.measure.bootstrap import CONFIDENCE, Estimate, Floats
from knowshift.measure.statistics import mcnemar_exact, paired_difference, wilson
from knowshift.repair.race import BASE, TUNED
from knowshift.repair.scores import Scores

Outcome = Literal["repaired", "nothing-lost", "nothing-returned", "task-drop"]
_SLACK = 1e-12  # of sums in another order


@dataclass(frozen=True, slots=True)
class Moved:
    """Facts that one model answers and another does not: ``gained`` and ``lost`` from the first to the second.

    Attributes:
        change: of the share of facts answered, with its paired interval.
        p_value: of McNemar's exact test.
    """

    gained: int
    lost: int
    change: Estimate
    p_value: float

    @property
    def up(self) -> bool:
        """Whether more was gained than chance explains."""
        return self.gained > self.lost and self.p_value < 1 - CONFIDENCE and self.change.low > 0

    @property
    def down(self) -> bool:
        """Whether more was lost than chance explains."""
        return self.lost > self.gained and self.p_value < 1 - CONFIDENCE and self.change.high < 0

    def to_json(self) -> dict[str, Any]:
        """The numbers by name."""
        return {"gained": self.gained, "lost": self.lost, **self.change.to_json(), "p_value": self.p_value}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What test says of the chosen candidate.

    Attributes:
        outcome: ``repaired`` (recommended), ``nothing-lost`` (the tuned model answers no fewer of the facts that the
            base knows than chance explains), ``nothing-returned`` (not more than the tuned model's, as far as test can
            tell) or ``task-drop`` (more, but the task fell by more than the bound).
        chosen: the candidate's name.
        facts, items: how many were asked.
        lost: facts that the base answers and the tuned model does not, ``returned`` of which the candidate answers.
        since_base: from the base to the tuned model.
        repair: from the tuned model to the candidate.
        task: change of the mean task score since the tuned model.
        bound: how much it may fall.
        rival: the best interpolation by the same rule, if it is another; ``over_rival``: from it to the candidate.
    """

    outcome: Outcome
    chosen: str
    facts: int
    items: int
    lost: int
    returned: int
    since_base: Moved
    repair: Moved
    task: Estimate
    bound: float
    rival: str | None = None
    over_rival: Moved | None = None

    @property
    def returned_share(self) -> Estimate | None:
        """``returned`` of ``lost``, with Wilson's interval; None where nothing was lost."""
        return wilson(self.returned, self.lost) if self.lost else None

    def to_json(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        share = self.returned_share
        return {
            "outcome": self.outcome,
            "chosen": self.chosen,
            "facts": self.facts,
            "items": self.items,
            "lost": self.lost,
            "returned": self.returned,
            "returned_share": share and share.to_json(),
            "since_base": self.since_base.to_json(),
            "repair": self.repair.to_json(),
            "task": self.task.to_json(),
            "max_task_drop": self.bound,
            "rival": self.rival,
            "over_rival": self.over_rival and self.over_rival.to_json(),
            "sentence": self.sentence,
        }

    @property
    def sentence(self) -> str:
        """The answer in plain words."""
        if self.outcome == "nothing-lost":
            return (
                f"Nothing was lost that the test can tell from chance: of {self.facts} facts that the base model "
                f"knows, the tuned model lost {self.since_base.lost} and gained {self.since_base.gained}."
            )
        if self.outcome == "nothing-returned":
            return (
                f"No repair returned more than chance explains: {self.returned} of {self.lost} lost facts came back, "
                f"and {self.repair.lost} others were lost."
            )
        share = self.returned_share or Estimate(0, 0, 0)
        came_back = (
            f"{self.returned} of {self.lost} lost facts ({100 * share.low:.0f} to {100 * share.high:.0f} %) "
            f"at a task change of {self.task.value:+.3f} ({self.task.low:+.3f} to {self.task.high:+.3f})"
        )
        if self.outcome == "task-drop":
            return f"The repair is not recommended: it returned {came_back}, more than the {self.bound:.3f} allowed."
        others = f"; {self.repair.lost} others were lost" if self.repair.lost else ""
        return f"The repair returned {came_back}{others}.{self._beside_the_rival()}"

    def _beside_the_rival(self) -> str:
        if self.over_rival is None:
            return ""
        more, fewer = self.over_rival.gained, self.over_rival.lost
        if self.over_rival.up:
            return f" It answers {more} facts that the best interpolation does not, and {fewer} the other way round."
        return (
            f" No repair beats interpolation as far as the test can tell: {more} facts only this repair answers, "
            f"{fewer} only the interpolation."
        )


def standard_error(scores: Floats, *, binary: bool) -> float:
    """One standard error of a model's mean task score, (items,).

    Of right and wrong it is that of (right + 1) of (items + 2): a model that gets all items right has one, too.
    """
    count = len(scores)
    if binary:
        share = (float(scores.sum()) + 1) / (count + 2)
        return math.sqrt(share * (1 - share) / (count + 2))
    return float(np.std(scores, ddof=1)) / math.sqrt(count) if count > 1 else 0.0


def choose(scores: Scores, bound: float, *, only: str = "") -> str:
    """The candidate with most knowledge whose mean task score is at most ``bound`` below the tuned model's.

    Among equals the one with the higher task score, then with the higher log-probability of the known facts, then the
    first. ``tuned`` where none within the bound has more knowledge than it.

    Args:
        scores: of validation.
        bound: in the units of the task's score.
        only: consider only names that begin so.
    """
    tuned = scores.place(TUNED)
    knowledge, task = scores.knowledge.mean(0), scores.task.mean(0)
    log_prob = scores.knowledge_log_prob.mean(0)
    fit = [
        index
        for index, name in enumerate(scores.names)
        if name not in (BASE, TUNED)
        and name.startswith(only)
        and task[index] >= task[tuned] - bound - _SLACK
        and knowledge[index] > knowledge[tuned] + _SLACK
    ]
    best = max(fit, key=lambda index: (knowledge[index], task[index], log_prob[index], -index), default=tuned)
    return scores.names[best]


def confirm(scores: Scores, chosen: str, bound: float, *, rival: str | None = None, seed: int = 0) -> Verdict:
    """What test says; to be asked once.

    Args:
        scores: of test: the base, the tuned model, the candidate and its rival.
        chosen: by ``choose``; ``tuned`` itself returns nothing.
        bound: as there.
        rival: the best interpolation by the same rule.
        seed: of the intervals.
    """
    base, tuned, after = (scores.knowledge[:, scores.place(name)] > 0 for name in (BASE, TUNED, chosen))
    task_before, task_after = (scores.task[:, scores.place(name)] for name in (TUNED, chosen))
    if scores.binary:
        task = paired_difference(task_before > 0, task_after > 0, seed=seed)
    else:
        task = paired_difference(task_before, task_after, seed=seed)
    since_base, repair = _moved(base, tuned, seed), _moved(tuned, after, seed)
    if not since_base.down:
        outcome: Outcome = "nothing-lost"
    elif not repair.up:
        outcome = "nothing-returned"
    else:
        outcome = "repaired" if task.value >= -bound - _SLACK else "task-drop"
    lost = base & ~tuned
    other = None if rival in (None, chosen, TUNED) else rival
    over = None if other is None else _moved(scores.knowledge[:, scores.place(other)] > 0, after, seed)
    return Verdict(
        outcome,
        chosen,
        len(base),
        len(task_before),
        int(lost.sum()),
        int((lost & after).sum()),
        since_base,
        repair,
        task,
        bound,
        other,
        over,
    )


def _moved(before: Any, after: Any, seed: int) -> Moved:
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return Moved(gained, lost, paired_difference(before, after, seed=seed), mcnemar_exact(lost, gained))
