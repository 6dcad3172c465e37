"""Divergence of next-token distributions that can be trained on, a few rows of the vocabulary at a time.

Takes states and heads, knows nothing of texts or models. (``knowshift.measure.kl`` measures, without gradients and
one number type wider.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Direction = Literal["base-tuned", "tuned-base"]
Logits = Callable[[Tensor, list[Tensor]], Tensor]

# Logits made at once: 64 MiB in float32, of which a handful of copies exist.
CHUNK = 1 << 24


def divergence(base: Tensor, tuned: Tensor, direction: Direction) -> Tensor:
    """KL(base || tuned) or KL(tuned || base) in nats, summed over the rows, in float32.

    Args:
        base: (n, vocabulary) logits.
        tuned: (n, vocabulary) logits.
    """
    log_base, log_tuned = base.float().log_softmax(-1), tuned.float().log_softmax(-1)
    of, to = (log_base, log_tuned) if direction == "base-tuned" else (log_tuned, log_base)
    return (of.exp() * (of - to)).sum()


def mean_divergence(
    states: Tensor,
    head: Logits,
    parameters: Sequence[Tensor],
    base_states: Tensor,
    base_head: Logits,
    base_parameters: Sequence[Tensor],
    direction: Direction,
) -> Tensor:
    """The mean divergence over rows, 0 without any, with gradients for ``states`` and ``parameters``.

    Gradients are taken chunk by chunk on the way, so nothing of the size rows x vocabulary outlives a chunk: beside
    the result there is one gradient of the size of ``states`` and of each parameter that has one.

    Args:
        states: (n, hidden) final states of the tuned model.
        head: what makes (n, vocabulary) logits of states and ``parameters``.
        base_states: (n, hidden) final states of the base on the same tokens; nothing of base gets a gradient.
    """

    def base_logits(start: int, stop: int) -> Tensor:
        return base_head(base_states[start:stop], list(base_parameters))

    apply: Callable[..., Tensor] = _Chunked.apply
    return apply(head, base_logits, direction, states, *parameters)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        head: Logits,
        base_logits: Callable[[int, int], Tensor],
        direction: Direction,
        states: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[3:]
        leaves = [x.detach().requires_grad_(needed) for x, needed in zip(parameters, wanted[1:], strict=True)]
        sums = [torch.zeros_like(leaf) for leaf in leaves if leaf.requires_grad]
        along = torch.zeros_like(states)
        total: Tensor = torch.zeros((), device=states.device)
        count = len(states)
        rows = max(1, CHUNK // base_logits(0, 0).shape[-1])
        for start in range(0, count, rows):
            stop = min(count, start + rows)
            base = base_logits(start, stop)
            with torch.enable_grad():
                part = states[start:stop].detach().requires_grad_(wanted[0])
                value = divergence(base, head(part, leaves), direction)
            total += value.detach()
            inputs = [x for x in (part, *leaves) if x.requires_grad]
            found = list(torch.autograd.grad(value, inputs)) if inputs else []
            if wanted[0]:
                along[start:stop] = found.pop(0)
            for gathered, gradient in zip(sums, found, strict=True):
                gathered += gradient
        ctx.gradients = [
            along if wanted[0] else None,
            *(sums.pop(0) if needed else None for needed in wanted[1:]),
        ]
        ctx.count = max(count, 1)
        return total.div(ctx.count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Any, ...]:
        factor = outer / ctx.count
        gradients = (None if g is None else g.mul_(factor.to(g.dtype)) for g in ctx.gradients)
        return (None, None, None, *gradients)
