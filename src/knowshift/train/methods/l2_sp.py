"""L2-SP: every weight is drawn back to where it started, in place of to zero.

The penalty is weight/2 * |theta - theta0|^2, theta0 being the base. Its gradient is not added to the loss's: Adam
divides what it gets by the gradient's own size, and would so undo the strength that was asked for. As AdamW does with
weight decay, the penalty acts apart from the gradient, and exactly: after each update with learning rate r the
penalty's proximal step is taken,

    theta <- theta0 + (theta - theta0) / (1 + r * weight),

which is stable at any weight. Without it theta - theta0 would be the sum of the updates; with it, an update is worth
1/e after 1 / (r * weight) further ones. So with learning rates near 1e-5 weights are in the hundreds to tens of
thousands.

Cost: one pass over the weights an update, and reading the base's, in the stored type, from its files (on an
accelerator they are kept there: 2 bytes a weight for bfloat16). Weight 0 is full fine-tuning bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PrivateAttr

from knowshift.train.methods.method import Keeper, Method, Run

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel

    from knowshift.train.origin import Origin


class L2Sp(Method):
    """A pull toward the base's weights after each update."""

    title: ClassVar[str] = "Full fine-tuning with L2-SP, decoupled"
    source: ClassVar[str] = "Li et al., arXiv 1802.01483; decoupled as weight decay in arXiv 1711.05101"
    with_adapter: ClassVar[bool] = False

    weight: float = Field(default=1000, ge=0, allow_inf_nan=False, description="strength of the pull")

    _origin: Origin | None = PrivateAttr(default=None)

    def prepare(self, model: PreTrainedModel, run: Run) -> None:
        """Find where the base's files hold each weight."""
        if self.weight:
            from knowshift.train.origin import Origin
            from knowshift.weights.checkpoint import Checkpoint

            self._origin = Origin(model, Checkpoint.open(run.base))

    def keeper(self, run: Run) -> Keeper | None:
        """What pulls."""
        return None if self._origin is None else _Pull(self._origin, self.weight)


class _Pull(Keeper):
    edits: ClassVar[bool] = True

    def __init__(self, origin: Origin, weight: float) -> None:
        self.origin = origin
        self.weight = weight

    def after_update(self, model: Module, learning_rate: float) -> None:
        from knowshift.train.origin import local, trained

        if not learning_rate:
            return
        share = 1 / (1 + 1 / (learning_rate * self.weight))
        for name, parameter in trained(model):
            weights = local(parameter)
            weights.lerp_(self.origin.of(name, parameter).to(weights.dtype), share)
