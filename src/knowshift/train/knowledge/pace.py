"""When to score: after the first step and at the end, and between them as often as a share of the time pays for.

Knows steps and seconds only. Where several processes train, one of them plans for all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Steps after which a step's time is known: the first is slower than those that follow.
WARM = 4
# Scorings of one run at most, however long it is.
MOST = 100


class Pace:
    """The next step to score at, and the time that scoring took.

    Args:
        every: score every so many steps, whatever it costs.
        budget: without ``every``: the share of the training time that the panel may take in all; the first step and the
            last are scored in any case.

    Attributes:
        setup: seconds the panel took before the first step.
        trained: seconds of training up to the last step, the panel's left out.
        scorings: how many there were.
        due: the step at which to score, or where ``only_plans`` says so, to plan.
    """

    def __init__(self, every: int | None, budget: float) -> None:
        self.every, self.budget = every, budget
        self.setup = self.trained = self._spent = 0.0
        self.scorings = 0
        self._since: float | None = None

    @contextmanager
    def own_time(self) -> Iterator[None]:
        """Count the time of this block as the panel's; what a GPU still had to do for training is not part of it."""
        _finish()
        self._since = time.perf_counter()
        try:
            yield
        finally:
            _finish()
            self._spent, self._since = self.spent, None

    @property
    def spent(self) -> float:
        """Seconds the panel took so far, asking the base and what it is doing just now included."""
        return self._spent + (0 if self._since is None else time.perf_counter() - self._since)

    def begin(self, steps: int, start: int) -> None:
        """Training starts.

        Args:
            steps: of the whole run.
            start: those already made, more than 0 after a resume.
        """
        self.steps, self.start = steps, start
        self.setup = self.spent
        self._begun = time.perf_counter()
        self._first = 0.0
        self.due = start + 1 if self.every is None else self._multiple(start)

    def only_plans(self, step: int) -> bool:
        """Whether ``due`` is for planning alone: how long steps take was not known before."""
        return self.every is None and step == self.start + WARM and step < self.steps

    def passes(self, step: int) -> None:
        """A step is made."""
        self.trained = time.perf_counter() - self._begun - (self.spent - self.setup)
        if step == self.start + 1:
            self._first = self.trained

    def next(self, step: int) -> int:
        """The step to score at after ``step``."""
        if self.every is not None:
            return self._multiple(step)
        if step < self.start + WARM:
            return min(self.steps, self.start + WARM)
        left = self.budget * self._expected(step) - self.spent
        return planned(step, self.steps, left=left, cost=(self.spent - self.setup) / self.scorings)

    def told(self) -> str | None:
        """What the least that is done cost, in a line, where that alone took more than the budget."""
        if self.every is not None or self.scorings > 2 or self.spent <= self.budget * self.trained:
            return None
        return (
            f"the knowledge panel took {self.spent:.1f} s beside {self.trained:.1f} s of training, more than the "
            f"budget of {self.budget:.0%}: {self.setup:.1f} s to ask the base, and {self.scorings} "
            f"scoring{'s' if self.scorings > 1 else ''}, the least there is; in a longer run that is a smaller share"
        )

    def _expected(self, step: int) -> float:
        """Seconds of training that the whole run will have taken since ``start``."""
        per_step = (self.trained - self._first) / max(1, step - self.start - 1)
        return self.trained + per_step * (self.steps - step)

    def _multiple(self, step: int) -> int:
        assert self.every is not None
        return min(self.steps, (step // self.every + 1) * self.every)


def planned(step: int, steps: int, *, left: float, cost: float) -> int:
    """The next of evenly spaced scorings after ``step``, the last of them at ``steps``.

    Args:
        step: where the run is.
        steps: where it ends.
        left: seconds that may still be spent.
        cost: seconds of one scoring.
    """
    most = steps - step
    affordable = most if left >= most * cost else int(left / cost)
    return min(steps, step + max(-(-steps // MOST), -(-most // max(1, affordable))))


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
