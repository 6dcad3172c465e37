"""When a run is saved on its way, and how a signal ends it: not at once, but after the step and with a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# Without --save-steps: at most this share of the time goes into checkpoints, and the first comes after so many seconds.
SHARE = 0.05
SECONDS = 300.0


class Saver(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Asks for a checkpoint when one is due, and when the process is asked to end.

    Args:
        stack: gives the signals back when the run ends, however it ends.
        every: steps between checkpoints; None goes by the clock and by what a checkpoint has cost.
    """

    def __init__(self, stack: ExitStack, every: int | None) -> None:
        self.stack, self.every = stack, every
        self.pause = SECONDS
        self.signal = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.since = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.stack.callback(signal.signal, number, signal.signal(number, self._asked_to_end))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            return  # the result itself is written next
        elapsed = time.monotonic() - self.since
        due = elapsed >= self.pause if self.every is None else state.global_step % self.every == 0
        due, self.signal = _agreed(args, due, self.signal)
        if due or self.signal:
            self.since = time.monotonic()
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        cost, self.since = time.monotonic() - self.since, time.monotonic()
        self.pause = max(SECONDS, cost * (1 - SHARE) / SHARE)
        if self.signal:
            _end(self.signal)

    def _asked_to_end(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:  # asked twice: at once
            _end(number)
        self.signal = number


def _end(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _agreed(args: TrainingArguments, due: bool, number: int) -> tuple[bool, int]:
    """All processes save at the same step: clocks differ, and a signal may reach one of them alone."""
    if args.world_size == 1:
        return due, number
    votes = torch.tensor([int(due), number], device=args.device)
    torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
    return bool(votes[0]), int(votes[1])
