"""How much of each tensor's update to keep: one coefficient a tensor, fitted to a loss by its gradient.

With theta_m(a) = base_m + a_m * (tuned_m - base_m), the slope of any loss L along a_m is the inner product
<dL/dtheta_m, tuned_m - base_m>. So one backward pass gives the slopes of all coefficients, which then move by Adam and
are put back into [0, 1]: 1 is the tuned tensor, 0 the base's, each bit for bit; restoring whole tensors is the case
of coefficients 0 and 1. Knows tensors and slopes; not which loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The rates of all steps add up to this, so that a coefficient can cross [0, 1] and half of the way back.
REACH = 1.5
_BETAS = (0.8, 0.95)  # tens of steps, not thousands


class Coefficients:
    """Coefficients of ``count`` updates, moved ``steps`` times; the rate falls linearly to nothing.

    Attributes:
        values: float64, each in [0, 1], at first 1.
    """

    def __init__(self, count: int, steps: int) -> None:
        self.values = torch.ones(count, dtype=torch.float64)
        self._steps = steps
        self._taken = 0
        self._adam = torch.optim.Adam([self.values], lr=0.0, betas=_BETAS)

    def move(self, slopes: Tensor) -> None:
        """One step against ``slopes``, (count,) of the loss along each coefficient."""
        left = max(0, self._steps - self._taken)
        self._taken += 1
        self._adam.param_groups[0]["lr"] = 2 * REACH * left / (self._steps * (self._steps + 1))
        self.values.grad = slopes.to(self.values)
        self._adam.step()
        self.values.clamp_(0, 1)


def slope(gradient: Tensor, base: Tensor, tuned: Tensor) -> Tensor:
    """The slope of a loss along the coefficient of one tensor: a number, in float64.

    Args:
        gradient: of the loss at any coefficient, of the shape of the tensors.
    """
    return (gradient.float() * (tuned.float() - base.float())).sum(dtype=torch.float64)


def between(base: Tensor, tuned: Tensor, coefficient: float) -> Tensor:
    """``base + coefficient * (tuned - base)`` in the type of ``tuned``; at 0 and 1 the one or the other exactly."""
    return torch.lerp(base.to(tuned.dtype), tuned, coefficient)
