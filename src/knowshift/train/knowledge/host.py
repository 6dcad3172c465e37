"""The trainer around a callback: which it is, what its training costs, and what all its processes agree on."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from transformers import Trainer, TrainerState, TrainingArguments


def agreed(values: list[float], args: TrainingArguments) -> list[float]:
    """The main process's values, in every process."""
    if args.world_size == 1:
        return values
    shared = torch.tensor(values, dtype=torch.float64, device=args.device)
    torch.distributed.broadcast(shared, src=0)
    return shared.tolist()


def work(args: TrainingArguments, state: TrainerState, loader: Any) -> float:
    """What training costs, in tokens read: each forward and, twice that, back. No limit where the rows do not tell."""
    try:
        rows = [loader.dataset[index] for index in range(min(64, len(loader.dataset)))]
        length: float = sum(len(row["input_ids"]) for row in rows) / len(rows)
    except (AttributeError, TypeError, KeyError, NotImplementedError, ZeroDivisionError):
        return math.inf
    sequences: int = args.train_batch_size * args.gradient_accumulation_steps * (state.max_steps - state.global_step)
    return 3 * length * sequences


def calling_trainer() -> Trainer | None:
    """The trainer whose loop this is called from: transformers hands a callback all of a trainer but itself."""
    frame = inspect.currentframe()
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, Trainer):
            return found
        frame = frame.f_back
    return None
