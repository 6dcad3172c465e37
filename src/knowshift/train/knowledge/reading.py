"""Logits where answers are predicted, read from a model in the middle of training without leaving a trace.

Knows models and passages; not what the passages ask, nor who trains.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from knowshift.generate.slots import can_be_slots, repeated
from knowshift.measure.passages import Passage, batches

BATCH_TOKENS = 4096
# Tokens that need not be read before it pays to read how all passages begin apart.
WORTH_SHARING = 128


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """The model in evaluation mode and without gradients; afterwards every module's mode and all random states are
    what they were, so that training goes on bit for bit as if nothing had happened."""
    modes = [(module, module.training) for module in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            random.setstate(python)
            np.random.set_state(numpy)


def answer_logits(
    model: Any, passages: Sequence[Passage], *, batch_tokens: int = BATCH_TOKENS
) -> Iterator[tuple[int, torch.Tensor]]:
    """Read passages, longest first, and yield the logits at the measured positions of each.

    Passages are padded on the right and read without a mask: in a causal model nothing looks to the right. What all of
    them begin with, such as solved examples, is read once.

    Args:
        model: a causal language model as a trainer calls it: wrapped, adapted, under autocast.
        passages: what it reads; all of them fit its context.
        batch_tokens: tokens read together, padding included.

    Yields:
        The index of a passage and its (kept, vocabulary) logits, on the model's device.
    """
    device = next(model.parameters()).device
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    takes = signature(inner.forward).parameters.keys()
    start, prefix = _shared(model, passages, device)
    reads = [passage.ids[start:] for passage in passages]
    for members in batches(reads, batch_tokens):
        width = len(reads[members[0]])
        # Padded with what they begin with: transformers warns of padding tokens without a mask.
        rows = [reads[index] + reads[index][:1] * (width - len(reads[index])) for index in members]
        # From the first measured position of any of them to the end.
        last = width - min(len(reads[index]) - passages[index].kept for index in members)
        told: dict[str, Any] = {"logits_to_keep": last} if "logits_to_keep" in takes else {}
        if prefix is not None:
            told["past_key_values"] = repeated(prefix, len(members), inner.config)
        ids = torch.tensor(rows, device=device)
        logits = model(input_ids=ids, use_cache=prefix is not None, **told).logits[:, -last:]
        for row, index in zip(logits, members, strict=True):
            end = last - (width - len(reads[index]))
            yield index, row[end - passages[index].kept : end]


def common(passages: Sequence[Passage]) -> int:
    """How many tokens all passages begin with, none of them measured."""
    first, last = min(passage.ids for passage in passages), max(passage.ids for passage in passages)
    unmeasured = min(len(passage.ids) - passage.kept for passage in passages)
    return next((place for place in range(unmeasured) if first[place] != last[place]), unmeasured)


def _shared(model: Any, passages: Sequence[Passage], device: torch.device) -> tuple[int, Any]:
    """How many tokens all passages begin with, none of them measured, and the model's cache of these; else 0, None."""
    start = common(passages)
    if start * (len(passages) - 1) < WORTH_SHARING:
        return 0, None
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = getattr(inner, "config", None)
    if config is None or not can_be_slots(DynamicCache(config=config), max(len(passage.ids) for passage in passages)):
        return 0, None
    ids = torch.tensor([passages[0].ids[:start]], device=device)
    output = model(input_ids=ids, past_key_values=DynamicCache(config=config), use_cache=True)
    return start, output.past_key_values
