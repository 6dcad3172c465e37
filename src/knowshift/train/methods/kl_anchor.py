"""KL anchor: next-token distributions are held near the base's.

To the training loss, the mean cross-entropy of n completion tokens, is added weight/n * sum KL(base || tuned), or
KL(tuned || base), over the whole vocabulary in float32 and the positions that ``on`` says: those that predict the
tokens of the training prompts (not the first), those that predict completions, or both. So an anchored position
weighs ``weight`` times what a completion token does, however batches are cut. Anchored completions work against the
training loss itself, prompts do not, hence the default.

With ``data`` it is weight times the mean over every prediction in other texts: ``batch`` windows of at most
``length`` tokens beside each micro-batch, in an order drawn once under the seed and gone through again and again.

The gradient by the tuned logits is q - p for KL(p || q), made a few rows of the vocabulary at a time.

The base's distributions come from the model without its adapter where one is trained, else from a copy of the base
as it is stored.

Cost: on training pairs one forward pass of the base, about a third of a step, and the head twice more; with ``data``
a forward and backward pass of those texts, too. Memory: under an adapter none beside a chunk of logits, else the copy
(2 bytes a weight for bfloat16, whole in every process), and a gradient of the head while a step lasts.
Processes may share the batch, not the model: the head is run apart from its body, where a divided one is not whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from knowshift.errors import InputError
from knowshift.seeds import derive
from knowshift.train.methods.method import Keeper, Method, Run

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from knowshift.train.reference import Copy, WithoutAdapter
    from knowshift.train.trainer import Trainer

Rows = list[tuple[int, ...]]

# What a trainer hands a model that is not for its first half.
_NOT_OF_BODIES = ("labels", "shift_labels", "completion_mask", "assistant_masks", "use_cache", "output_router_logits")


class KlAnchor(Method):
    """A divergence from the base's distributions in the loss."""

    title: ClassVar[str] = "KL to the base in the loss"
    source: ClassVar[str] = (
        "the penalty of Ziegler et al., arXiv 1909.08593, on given texts, as in Li and Hoiem, arXiv 1606.09282"
    )

    divisible: ClassVar[bool] = False

    weight: float = Field(
        default=1,
        ge=0,
        allow_inf_nan=False,
        description="of a position's KL against a completion token's loss, both in nats",
    )
    direction: Literal["base-tuned", "tuned-base"] = Field(
        default="base-tuned", description="KL(base || tuned) or KL(tuned || base)"
    )
    on: Literal["prompts", "completions", "all"] = Field(default="prompts", description="of the training pairs")
    data: Path | None = Field(default=None, description="other texts in place of the pairs: JSONL or running text")
    batch: int = Field(default=8, ge=1, description="windows of data beside a micro-batch")
    length: int = Field(default=128, ge=2, description="tokens in a window of data, at most")

    _texts: Rows = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        useless = ("on",) if self.data is not None else ("batch", "length")
        for option in useless:
            if option in self.model_fields_set and getattr(self, option) != type(self).model_fields[option].default:
                why = "with" if self.data is not None else "without"
                raise InputError(f"--{option}: has no effect {why} --set kl-anchor.data")
        return self

    def prepare(self, model: PreTrainedModel, run: Run) -> None:
        """Read the texts and try the head.

        Raises:
            InputError: texts that cannot be read or do not fit, or a head that cannot be run on its own.
        """
        from knowshift.measure.texts import read_documents, text_passages
        from knowshift.train.heads import Head

        if not self.weight:
            return
        Head(model).check(model)
        if self.data is not None:
            longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            if longest is not None and self.length > longest:
                raise InputError(f"--set kl-anchor.length={self.length}: the model's context is {longest}")
            passages, _ = text_passages(run.tokenizer, read_documents(self.data, run.tokenizer), self.length)
            windows = [passage.ids for passage in passages]
            order = sorted(range(len(windows)), key=lambda row: derive(run.options.seed, "kl-anchor", row))
            self._texts.extend(windows[row] for row in order)

    def keeper(self, run: Run) -> Keeper | None:
        """What adds the term, if it has a weight."""
        return _Anchor(self, run, self._texts) if self.weight else None


class _Anchor(Keeper):
    def __init__(self, method: KlAnchor, run: Run, texts: Rows) -> None:
        self.method = method
        self.run = run
        self.texts = texts
        self.parts = int(run.options.set.get("gradient_accumulation_steps", 1))
        self.reference: Copy | WithoutAdapter | None = None
        self.found: list[Tensor] = []

    def join(self, trainer: Trainer) -> None:
        self.accelerator = trainer.accelerator

    def begin(self, model: Module, optimizer: Optimizer) -> None:
        from knowshift.train.heads import Body, Head

        self.body = Body(model)
        self.head = Head(self.body.whole)

    def begin_update(self, model: Module, step: int, epoch: int) -> None:
        self.found.clear()
        self.turn = step * self.parts

    def loss(self, model: Module, inputs: dict[str, Any], items: Tensor | int | None) -> Tensor:
        import torch

        from knowshift.train.divergence import mean_divergence
        from knowshift.train.heads import places

        learned = (inputs["labels"][..., 1:] != -100).sum()
        if self.texts:
            given, mask = self._next(model)
            caught = self.body.read(model, given)
            # What only fills up an epoch's last batch brings no texts with it.
            mask &= learned > 0
        else:
            # The trainer's own forward pass has just been caught.
            given = {name: value for name, value in inputs.items() if name not in _NOT_OF_BODIES}
            caught, mask = self.body.take(), places(inputs, self.method.on)
        reference = self.reference or self._reference(model)
        base = reference.states(model, given, caught)
        mean = mean_divergence(
            caught.states[mask],
            self.head,
            self.head.parameters(),
            base[mask],
            reference.head,
            reference.head.parameters(),
            self.method.direction,
        )
        self.turn += 1
        count = mask.sum()
        self.found.append(torch.stack((mean.detach() * count, count)))
        if items is None:
            items = learned.clamp(min=1)
        # Of texts beside it, a micro-batch counts as much as its completions do in the update's loss.
        share = (learned if self.texts else count) / items
        return self.method.weight * share * mean

    def metrics(self) -> dict[str, float]:
        nats, positions = self.accelerator.reduce(sum(self.found)).tolist()
        return {"kl_anchor": nats / max(1, positions)}

    def _reference(self, model: Module) -> Copy | WithoutAdapter:
        from knowshift.train.reference import Copy, WithoutAdapter

        adapters = [method for method in self.run.options.methods() if method.adapter]
        # Some adapters change the weights beneath them as they begin.
        if adapters and all(getattr(method, "keeps_base", True) for method in adapters):
            self.reference = WithoutAdapter(model, self.body)
        else:
            self.reference = Copy(self.run.base, self.body.device)
        return self.reference

    def _next(self, model: Module) -> tuple[dict[str, Any], Tensor]:
        """The texts of this turn and process, padded on the right, and which of their tokens predict."""
        import torch
        from torch import distributed

        several = distributed.is_available() and distributed.is_initialized()
        turn = self.turn * distributed.get_world_size() + distributed.get_rank() if several else self.turn
        first = turn * self.method.batch
        rows = [self.texts[index % len(self.texts)] for index in range(first, first + self.method.batch)]
        width = max(map(len, rows))
        ids = torch.tensor([row + (0,) * (width - len(row)) for row in rows], device=self.body.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.body.device)
        return {"input_ids": ids, "attention_mask": mask}, mask.bool()
