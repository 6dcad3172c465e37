"""The gradient of the training loss on given examples, outside of the order of training.

Knows the trainer's data, collator and devices; not what the gradient is for. The state of random draws is left as it
was found, so training goes on as if nothing had been computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module

from knowshift.seeds import derive

if TYPE_CHECKING:
    from knowshift.train.trainer import Trainer


def shuffled(count: int, seed: int) -> list[int]:
    """The numbers below ``count`` in an order drawn under ``seed``."""
    return sorted(range(count), key=lambda number: derive(seed, number))


@contextmanager
def own_draws(seed: int) -> Iterator[None]:
    """Within, dropout and the like are drawn under ``seed``; afterwards as if nothing had been drawn."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def batches(trainer: Trainer, examples: Sequence[Any]) -> Iterator[tuple[dict[str, Any], float]]:
    """Examples, such as rows of the trainer's data, in the given order, collated as for training.

    Processes share them, and have equally many batches: one without examples left gets others again, of weight 0.

    Yields:
        What the model takes, on its device, and its weight.
    """
    size, processes = trainer.args.per_device_train_batch_size, trainer.accelerator.num_processes
    for start in range(0, len(examples), size * processes):
        first = start + size * trainer.accelerator.process_index
        own = examples[first : first + size]
        yield trainer._prepare_inputs(trainer.data_collator(list(own or examples[:size]))), 1.0 if own else 0.0


def add_gradients(trainer: Trainer, model: Module, examples: Sequence[Any], scale: float = 1.0) -> None:
    """Add to each weight's ``grad`` that of the completions' summed cross-entropy, times ``scale``.

    Args:
        model: as the trainer calls it; where processes share the examples, it is the mean of theirs that is added.
    """
    for inputs, weight in batches(trainer, examples):
        torch.autograd.backward(summed_loss(model, inputs) * (scale * weight))


def summed_loss(model: Module, inputs: dict[str, Any]) -> Tensor:
    """The summed cross-entropy of a batch's labelled tokens, in nats."""
    tokens = (inputs["labels"][..., 1:] != -100).sum()
    mean: Tensor = model(**inputs, use_cache=False).loss
    return mean.mul(tokens)
