"""AdamW whose moments follow every weight, and which moves those with the largest momentum alone.

The arithmetic is torch's own AdamW, one parameter at a time; what was not chosen is put back afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW

from knowshift.train.largest import largest
from knowshift.train.origin import local
from knowshift.weights.ranking import exact


class FilteredAdamW(AdamW):
    """``torch.optim.AdamW`` with a filter; state and its format are the same.

    Args:
        share: of each parameter's weights, in (0, 1]; at least one weight moves. At 1 this is AdamW.
        options: AdamW's.
    """

    def __init__(self, params: Any, *, share: float, **options: Any) -> None:
        super().__init__(params, **options)
        self.share = exact(share)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of the weights that the updated first moment chooses."""
        loss: float | None = None
        if self.share == 1:
            return super().step(closure)  # type: ignore[no-any-return]
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        try:
            for group in groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self.param_groups = [{**group, "params": [parameter]}]
                        self._move(parameter)
        finally:
            self.param_groups = groups
        return loss

    def _move(self, parameter: torch.nn.Parameter) -> None:
        values = local(parameter)
        before = values.clone()
        super().step()
        momentum = self.state[parameter]["exp_avg"]
        count = max(1, parameter.numel() * self.share.numerator // self.share.denominator)
        (chosen,) = largest([momentum], count)
        values.copy_(torch.where(chosen, values, before))
