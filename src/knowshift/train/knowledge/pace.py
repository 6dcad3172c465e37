"""When to score: as often as a share of the training time pays for, evenly spaced, and once at the end.

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
        budget: without ``every``: the share of the training time that the panel may take in all.

    Attributes:
        spent: seconds the panel took so far, asking the base included.
        due: the step at which to score, or where ``only_plans`` says so, to plan.
    """

    def __init__(self, every: int | None, budget: float) -> None:
        self.every, self.budget = every, budget
        self.spent, self.scorings = 0.0, 0

    @contextmanager
    def own_time(self) -> Iterator[None]:
        """Count the time of this block as the panel's; what a GPU still had to do for training is not part of it."""
        _finish()
        begun = time.perf_counter()
        try:
            yield
        finally:
            _finish()
            self.spent += time.perf_counter() - begun

    def begin(self, steps: int, start: int, share: float) -> None:
        """Training starts.

        Args:
            steps: of the whole run.
            start: those already made, more than 0 after a resume.
            share: what one scoring reads, of all that was read until now; its cost is guessed from that until one
                was made.
        """
        self.steps, self.start = steps, start
        self.setup, self._guess = self.spent, self.spent * share
        self._begun = self._now = time.perf_counter()
        self._first = 0.0
        self.due = min(steps, start + WARM) if self.every is None else self._multiple(start)

    def only_plans(self, step: int) -> bool:
        """Whether ``due`` is for planning alone: how long steps take was not known before."""
        return self.every is None and step == self.start + WARM and step < self.steps

    def passes(self, step: int) -> None:
        """A step is made."""
        self._now = time.perf_counter()
        if step == self.start + 1:
            self._first = self.trained

    @property
    def trained(self) -> float:
        """Seconds of training up to the last step, the panel's left out."""
        return self._now - self._begun - (self.spent - self.setup)

    def next(self, step: int) -> int:
        """The step to score at after ``step``."""
        if self.every is not None:
            return self._multiple(step)
        return planned(
            step,
            self.steps,
            left=self.budget * self._expected(step) - self.spent,
            cost=(self.spent - self.setup) / self.scorings if self.scorings else self._guess,
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
