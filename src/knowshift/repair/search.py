"""The search: base and tuned measured first, a race on search, the choice on validation, one look at test.

Every measurement is the bench's, so it is a file. The budget bounds the race and the learning before it, and keeps
back what validation, test and the writing of the model will take. Knows names and scores; not models.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from knowshift.errors import InputError
from knowshift.measure.statistics import paired_difference
from knowshift.repair.bench import Bench
from knowshift.repair.choose import Verdict, choose, confirm, standard_error
from knowshift.repair.race import BASE, TUNED, rounds, survivors
from knowshift.repair.scores import side_by_side
from knowshift.repair.space import INTERPOLATE
from knowshift.repair.split import PARTS, Part

# Facts and items of each part that are asked at most: a race needs fewer than a proof.
MOST: dict[Part, tuple[int, int]] = {"search": (192, 64), "validation": (256, 128), "test": (1000, 500)}
# Candidates that validation sees.
FINALISTS = 5
# Who loses half of the task, but no more of the knowledge than this, is not a tuned model that forgot.
SWAPPED = 0.25
# Of the budget, for the writing of the model and of what is told of it.
WRITING = 0.1


class Clock:
    """The minutes that a search may take, from now on."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self._begun = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._begun

    @property
    def left(self) -> float:
        """Seconds that are left; negative when they are over."""
        return self.seconds - self.spent


@dataclass(frozen=True, slots=True)
class Found:
    """What the search came to.

    Attributes:
        verdict: of test.
        finalists: who was measured on validation.
        rounds: of the race as it was run: candidates, and facts and items each was measured on.
        unraced: answers that measuring every candidate on all of search would have taken.
    """

    verdict: Verdict
    finalists: tuple[str, ...] = ()
    rounds: tuple[tuple[int, int, int], ...] = ()
    unraced: int = 0


class Search:
    """One search.

    Args:
        bench: of the models ``base``, ``tuned`` and the candidates.
        clock: of the budget.
        drop: by how much the task's mean score may fall; None: one standard error of the tuned model's on validation.
        seed: of the race's draws and the intervals.
    """

    def __init__(self, bench: Bench, clock: Clock, *, drop: float | None, seed: int) -> None:
        self.bench, self.clock, self.seed = bench, clock, seed
        self._drop = drop

    def measure(self, name: str) -> None:
        """Ask the base or the tuned model everything."""
        for part in PARTS:
            self.bench.table(name, part)

    def check(self) -> bool:
        """Whether search and validation tell that something was lost; base and tuned model were measured.

        Raises:
            InputError: if the two seem to be swapped, or the tuned one cannot do the task.
        """
        scores = side_by_side(
            {name: pl.concat([self.bench.table(name, part) for part in PARTS[:2]]) for name in (BASE, TUNED)}
        )
        moved = confirm(scores, TUNED, 0.0, seed=self.seed).since_base
        base, tuned = (scores.task[:, scores.place(name)] for name in (BASE, TUNED))
        before, after = (float(own.mean() if scores.binary else np.exp(own.mean())) for own in (base, tuned))
        worse = after < before / 2 and paired_difference(base, tuned, seed=self.seed).high < 0
        if worse and moved.change.value > -SWAPPED:
            raise InputError(
                f"the base model does the task far better than the tuned one ({before:.3g} and {after:.3g}) and knows "
                "hardly more: the two seem to be swapped"
            )
        if scores.binary and not tuned.any():
            raise InputError(
                f"the tuned model gets none of {len(tuned)} prompts of the task right: is it the model that was "
                "trained for this task, and does --task-metric suit it?"
            )
        return moved.down

    def nothing_lost(self) -> Found | None:
        """The end of a search in which test says that nothing was lost."""
        verdict = self._test(TUNED, None)
        return Found(verdict) if verdict.outcome == "nothing-lost" else None

    def run(self, names: Sequence[str]) -> Found:
        """Find the repair among candidates, the most promising first."""
        finalists, done = self._race(list(names))
        scores = self.bench.scores([TUNED, *finalists], "validation")
        chosen, rival = choose(scores, self.bound), choose(scores, self.bound, only=f"{INTERPOLATE}-")
        unraced = len(names) * sum(self.bench.most["search"])
        return Found(self._test(chosen, rival), tuple(finalists), tuple(done), unraced)

    @property
    def bound(self) -> float:
        """By how much the task's mean score may fall."""
        if self._drop is not None:
            return self._drop
        scores = self.bench.scores([TUNED], "validation")
        return standard_error(scores.task[:, 0], binary=scores.binary)

    @property
    def left(self) -> float:
        """Seconds until validation, test and writing must begin."""
        validation, test = (float(self.bench.table(TUNED, part)["seconds"].sum()) for part in PARTS[1:])
        return self.clock.left - WRITING * self.clock.seconds - (FINALISTS + 1) * validation - 2 * test

    def _race(self, names: list[str]) -> tuple[list[str], list[tuple[int, int, int]]]:
        """The finalists, and the rounds as they were run."""
        done: list[tuple[int, int, int]] = []
        for each in rounds(len(names), *self.bench.most["search"]):
            if done:
                names = self._on(names, done[-1], each.candidates)
            measured: list[str] = []
            for name in names:
                missing = not self.bench.has(name, "search", each.facts, each.items)
                if missing and self.left < 0 and (done or len(measured) >= FINALISTS):
                    break
                self.bench.table(name, "search", each.facts, each.items)
                measured.append(name)
            if done and len(measured) < len(names):
                break  # what is known of all of them is what the round before said
            names = measured
            done.append((len(names), each.facts, each.items))
        return self._on(names, done[-1], FINALISTS), done

    def _on(self, names: list[str], last: tuple[int, int, int], count: int) -> list[str]:
        """Who goes on; the best interpolation always does, since the answer is told beside it."""
        scores = self.bench.scores([TUNED, *names], "search", *last[1:])
        kept = survivors(scores, self.bound, count, seed=self.seed)
        best = choose(scores, self.bound, only=f"{INTERPOLATE}-")
        return kept if best in (TUNED, *kept) else [*kept, best]

    def _test(self, chosen: str, rival: str | None) -> Verdict:
        names = dict.fromkeys([BASE, TUNED, chosen, rival or TUNED])
        return confirm(self.bench.scores(names, "test"), chosen, self.bound, rival=rival, seed=self.seed)
