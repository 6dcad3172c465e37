"""HFT, half fine-tuning: half of the matrices of every block is frozen, another half after each draw.

The half is drawn as the paper says (``knowshift.weights.merge.hft`` has the rule): within every block half of the
attention's matrices, of the feed-forward part's and of the norms. What lies outside of blocks is trained. While a
weight is frozen it has no gradient, so neither it nor its moments of the optimizer move, weight decay included.

The paper freezes one half for a whole stage of training; so does this for each epoch, or for ``redraw`` updates.
A draw depends on the seed and its number alone: a resumed run goes on with the same halves.

Cost: none. In one process the gradients of the frozen half are never computed, and its moments take memory only once
it was trained. Under several processes gradients are exchanged for all weights and then dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from knowshift.errors import InputError
from knowshift.seeds import derive
from knowshift.train.methods.method import Keeper, Method, Run
from knowshift.train.origin import trained
from knowshift.train.processes import count
from knowshift.weights.merge.hft import half
from knowshift.weights.regions import classify, unwrapped

if TYPE_CHECKING:
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer
    from transformers import PreTrainedModel


class Hft(Method):
    """Half of every block is frozen at a time."""

    title: ClassVar[str] = "Half fine-tuning"
    source: ClassVar[str] = "Hui et al., arXiv 2404.18466"
    with_adapter: ClassVar[bool] = False

    redraw: int = Field(default=0, ge=0, description="updates between two draws; 0 draws at each epoch")

    def prepare(self, model: PreTrainedModel, run: Run) -> None:
        """Make sure that there are blocks to halve."""
        if all(classify(name).layer is None for name, _ in model.named_parameters()):
            raise InputError(f"--method {run.options.method}: {type(model).__name__} has no blocks that hft knows")

    def keeper(self, run: Run) -> Keeper:
        """What draws and freezes."""
        return _Halves(self.redraw, run.options.seed)


class _Halves(Keeper):
    edits: ClassVar[bool] = True

    def __init__(self, redraw: int, seed: int) -> None:
        self.redraw = redraw
        self.seed = seed
        self.drawn = -1
        self.frozen: list[Parameter] = []

    def begin(self, model: Module, optimizer: Optimizer) -> None:
        # Without what wrappers put in front, so that any number of processes draws the same.
        self.parameters = [(unwrapped(name), parameter) for name, parameter in trained(model)]

    def begin_update(self, model: Module, step: int, epoch: int) -> None:
        number = step // self.redraw if self.redraw else epoch
        if number == self.drawn:
            return
        self.drawn = number
        drawn = half({name: classify(name) for name, _ in self.parameters}, derive(self.seed, "hft", number))
        self.frozen = [parameter for name, parameter in self.parameters if name in drawn]
        for name, parameter in self.parameters:
            parameter.grad = None
            # What exchanges gradients waits for one of every weight that had one when it was set up.
            parameter.requires_grad = name not in drawn or count() > 1

    def before_update(self, model: Module) -> None:
        for parameter in self.frozen:
            parameter.grad = None
