"""Fits the coefficients of a model's update in place: the trained weights come in, the fitted ones stay.

Knows the trainer's model and data; the mathematics is in ``weights.coefficients``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import Module

from knowshift.train.gradients import add_gradients, own_draws, shuffled
from knowshift.train.largest import sharers
from knowshift.train.origin import Origin, local, trained
from knowshift.weights.coefficients import Coefficients, between, slope

if TYPE_CHECKING:
    from knowshift.train.own_text import OwnText
    from knowshift.train.trainer import Trainer


class Fit:
    """One fit.

    Args:
        model: as the trainer calls it, holding the trained weights.
        origin: of the base's values.

    Attributes:
        sizes: the number of weights of each tensor that has a coefficient, by name.
    """

    def __init__(self, trainer: Trainer, model: Module, origin: Origin) -> None:
        self.trainer, self.model, self.origin = trainer, model, origin
        self.parameters = dict(trained(trainer.accelerator.unwrap_model(model, keep_torch_compile=False)))
        self.sizes = {name: parameter.numel() for name, parameter in self.parameters.items()}

    def run(
        self, examples: Sequence[Any], text: OwnText | None, *, weight: float, steps: int, batch: int, seed: int
    ) -> dict[str, float]:
        """Fit and set the weights; the coefficient of each tensor by name.

        Args:
            examples: tokens and labels, for the mean task loss over labelled tokens.
            text: for the mean KL over tokens, times ``weight``.
            batch: examples, and texts, for a step; they come in an order drawn under ``seed``, again and again.
        """
        tuned = {name: local(parameter).clone() for name, parameter in self.parameters.items()}
        coefficients = Coefficients(len(tuned), steps)
        shown = _Rounds(len(examples), batch, seed)
        read = _Rounds(len(text) if text is not None else 0, batch, seed)
        with own_draws(seed):
            for _ in range(steps):
                self._forget()
                self._add_task([examples[row] for row in next(shown)])
                if text is not None and weight:
                    self._add_divergence(text, next(read), weight)
                coefficients.move(self._slopes(tuned))
                self._set(tuned, coefficients.values)
        self._forget()
        return dict(zip(tuned, coefficients.values.tolist(), strict=True))

    def _add_task(self, examples: list[Any]) -> None:
        tokens = sum(label != -100 for each in examples for label in each["labels"][1:])
        # What processes add up is their mean.
        add_gradients(self.trainer, self.model, examples, self.trainer.accelerator.num_processes / max(1, tokens))

    def _add_divergence(self, text: OwnText, rows: list[int], weight: float) -> None:
        state = self.trainer.accelerator
        own = rows[state.process_index :: state.num_processes]
        asked = own or rows[:1]  # every process takes part in every pass
        logits = self.model(**text.inputs(asked, state.device)).logits
        scale = weight * state.num_processes / text.tokens(rows) if own else 0.0
        torch.autograd.backward(text.divergence(asked, logits) * scale)

    def _slopes(self, tuned: dict[str, Tensor]) -> Tensor:
        found = []
        for name, parameter in self.parameters.items():
            base, gradient = self.origin.of(name, parameter), parameter.grad
            own = torch.zeros((), dtype=torch.float64, device=base.device)
            if gradient is not None:
                own = slope(local(gradient), base, tuned[name])
            group = sharers(parameter)
            if group is not None:
                dist.all_reduce(own, group=group)
            found.append(own.cpu())
        return torch.stack(found)

    def _set(self, tuned: dict[str, Tensor], values: Tensor) -> None:
        for (name, parameter), value in zip(self.parameters.items(), values.tolist(), strict=True):
            local(parameter).copy_(between(self.origin.of(name, parameter), tuned[name], value))

    def _forget(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None


class _Rounds:
    """``batch`` of ``count`` numbers at a time, in an order drawn under ``seed``, again and again."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.order, self.batch, self.place = shuffled(count, seed), min(batch, count), 0

    def __next__(self) -> list[int]:
        chosen = [self.order[(self.place + step) % len(self.order)] for step in range(self.batch)]
        self.place += self.batch
        return chosen
