"""MoFO: at each step only the weights with the largest momentum move (Chen et al., arXiv 2407.20999).

For each parameter tensor, m and v follow AdamW for all of its weights; then theta_i -= lr * m^_i / (sqrt(v^_i) + eps)
for the floor(n * share) of its n weights with the largest abs(m_i), at least one, and the others stay. Gradients along
which the loss falls steadily are followed, and the weights end nearer to the base. A weight that stays is not decayed.

Cost beside AdamW: one copy of the largest tensor; time for two passes over the momentum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from knowshift.train.methods.method import Method, Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Mofo(Method):
    """AdamW that moves a share of each tensor's weights at each step."""

    title: ClassVar[str] = "Momentum-filtered optimizer (MoFO)"
    source: ClassVar[str] = "Chen et al., arXiv 2407.20999"

    share: float = Field(default=0.15, gt=0, le=1, allow_inf_nan=False, description="of each tensor's weights")

    def arguments(self, model: PreTrainedModel, run: Run) -> dict[str, Any]:
        """The optimizer in AdamW's place, with AdamW's settings."""
        from knowshift.train.filtered import FilteredAdamW

        return {"adamw": (FilteredAdamW, {"share": self.share})}
