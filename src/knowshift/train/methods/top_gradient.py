"""Top-gradient: only the weights in which the loss is steepest at the base are trained.

Let g be the gradient of the training loss at the base, over ``batches`` batches. Of the n weights in ``region`` the
floor(n * share) with the largest abs(g) are trained, chosen once and over all tensors together (among equals the first
in the model's order); every other weight stays the base's, bit for bit, at every step and under any optimizer.

Source: sparse masks by Fisher information (FISH, Sung et al., arXiv 2111.09839), which for one batch is g^2; here g is
summed over the batches before it is squared.

Cost: one bit a weight, a pass over the weights and one over the base's files at each update, and at the start the
gradients of ``batches`` batches. Gradients and moments take the memory they take in full fine-tuning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PrivateAttr

from knowshift.errors import InputError
from knowshift.train.methods.method import Keeper, Method, Run
from knowshift.weights.regions import selector

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from knowshift.train.origin import Origin
    from knowshift.train.trainer import Trainer


class TopGradient(Method):
    """A fixed share of the weights is trained: those with the largest gradient at the base."""

    title: ClassVar[str] = "Sparse fine-tuning of the largest gradients"
    source: ClassVar[str] = "after Sung et al., arXiv 2111.09839, by gradient in place of Fisher information"
    with_adapter: ClassVar[bool] = False

    share: float = Field(default=0.05, gt=0, le=1, allow_inf_nan=False, description="of the region's weights")
    region: str = Field(default="blocks", description="as in diff --region; all other weights are frozen")
    batches: int = Field(default=32, ge=1, description="at most so many batches of the data choose")

    _origin: Origin | None = PrivateAttr(default=None)

    def prepare(self, model: PreTrainedModel, run: Run) -> None:
        """Freeze what is outside of the region.

        Raises:
            InputError: no such region, or nothing in it to train.
        """
        from knowshift.train.origin import Origin
        from knowshift.weights.checkpoint import Checkpoint

        try:
            inside = selector(self.region)
        except InputError as error:
            raise InputError(str(error).replace("--region ", "--set top-gradient.region=", 1)) from error
        for name, parameter in model.named_parameters():
            parameter.requires_grad &= inside(name)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(f"--set top-gradient.region={self.region}: no weight of this model is left to train")
        self._origin = Origin(model, Checkpoint.open(run.base))

    def keeper(self, run: Run) -> Keeper:
        """What chooses and holds the mask."""
        assert self._origin is not None
        return _Mask(self, self._origin, run)


class _Mask(Keeper):
    edits: ClassVar[bool] = True

    def __init__(self, method: TopGradient, origin: Origin, run: Run) -> None:
        self.method = method
        self.origin = origin
        self.seed = run.options.seed
        self.examples = method.batches * run.options.batch_size
        self.bits: dict[str, Tensor] = {}

    def join(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def begin(self, model: Module, optimizer: Optimizer) -> None:
        if not self.bits:
            self._choose(model)

    def before_update(self, model: Module) -> None:
        from knowshift.train.bits import unpacked
        from knowshift.train.origin import local, trained

        for name, parameter in trained(model):
            if parameter.grad is not None:
                gradient = local(parameter.grad)
                gradient.masked_fill_(~unpacked(self.bits[name], gradient), 0)

    def after_update(self, model: Module, learning_rate: float) -> None:
        from knowshift.train.bits import unpacked
        from knowshift.train.origin import local, trained

        for name, parameter in trained(model):
            weights = local(parameter)
            base = self.origin.of(name, parameter).to(weights.dtype)
            weights.copy_(base.where(~unpacked(self.bits[name], weights), weights))

    def state(self) -> dict[str, Tensor]:
        return self.bits

    def resume(self, state: dict[str, Tensor]) -> None:
        self.bits = state

    def _choose(self, model: Module) -> None:
        import torch

        from knowshift.seeds import derive
        from knowshift.train.bits import packed
        from knowshift.train.gradients import add_gradients, own_draws, shuffled
        from knowshift.train.largest import largest
        from knowshift.train.origin import trained
        from knowshift.weights.ranking import exact

        seed, data = derive(self.seed, "top-gradient"), self.trainer.train_dataset
        examples = [data[row] for row in shuffled(len(data), seed)[: self.examples]]
        with own_draws(seed):
            add_gradients(self.trainer, model, examples)
        parameters = dict(trained(model))
        share = exact(self.method.share)
        count = sum(parameter.numel() for parameter in parameters.values()) * share.numerator // share.denominator
        # An expert that saw no token has no gradient.
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters.values()]
        self.bits = {name: packed(mask) for name, mask in zip(parameters, largest(gradients, count), strict=True)}
        for parameter in parameters.values():
            parameter.grad = None
