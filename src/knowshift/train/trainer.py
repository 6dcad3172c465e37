"""TRL's SFTTrainer, with keepers called between its steps. No loop of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from knowshift.errors import InputError
from knowshift.train.batches import once
from knowshift.train.methods.method import Keeper
from knowshift.train.resumable import Resumable
from knowshift.train.trl_settings import refusals


class Trainer(Resumable):
    """Without keepers it trains as ``trl.SFTTrainer`` does, bit for bit.

    Args:
        keepers: called in this order.
        adamw: a class to use in the place of ``torch.optim.AdamW``, and what it takes beside AdamW's own settings.
    """

    def __init__(
        self,
        *args: Any,
        keepers: Sequence[Keeper] = (),
        adamw: tuple[type[torch.optim.AdamW], dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.adamw = adamw
        super().__init__(*args, **kwargs)
        self.keepers = list(keepers)
        if self.is_deepspeed_enabled and any(keeper.edits for keeper in self.keepers):
            raise InputError("this --method changes weights or gradients in place, which DeepSpeed hides: use FSDP2")
        self.add_callback(_Turns(self))
        for keeper in self.keepers:
            keeper.join(self)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor | int | None]:
        """The micro-batches of an update, in which no example of an epoch counts twice."""
        size = self.args.per_device_train_batch_size
        rest = len(self.train_dataset) % (size * self.accelerator.num_processes)
        rest = 0 if self.args.dataloader_drop_last else rest
        batches = once(epoch_iterator, self.accelerator, size, rest)
        found: tuple[list[dict[str, Any]], torch.Tensor | int | None]
        found = super().get_batch_samples(batches, num_batches, device)
        return found

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """TRL's loss and, in training, what keepers add."""
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not model.training:
            return result
        loss, rest = (result[0], result[1:]) if return_outputs else (result, ())
        # As TRL weights its own: tokens are counted over all processes, of whose gradients the mean is taken.
        everywhere = num_items_in_batch is not None and self.args.average_tokens_across_devices
        processes = self.accelerator.num_processes // self.get_tp_size() if everywhere else 1
        for keeper in self.keepers:
            term = keeper.loss(model, inputs, num_items_in_batch)
            if term is not None:
                loss = loss + term * processes
        return (loss, *rest) if return_outputs else loss

    def training_step(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch, forward and back; after an update's last one its gradients are shown to keepers."""
        loss: torch.Tensor = super().training_step(model, *args, **kwargs)
        if self.accelerator.sync_gradients:
            for keeper in self.keepers:
                keeper.before_update(model)
        return loss

    def finish(self) -> None:
        """To be called once after training: what keepers do to the trained weights at last."""
        for keeper in self.keepers:
            keeper.finish(self.model_wrapped)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The optimizer of ``optim``, whose library may be missing or whose arguments wrong."""
        with refusals():
            if self.adamw is not None:
                own, more = self.adamw
                usual, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
                if usual is not torch.optim.AdamW:
                    raise InputError(f"--set optim={self.args.optim.value}: the method needs torch's AdamW")
                self.optimizer_cls_and_kwargs = (own, settings | more)
            optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        return optimizer

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """The scheduler of ``lr_scheduler_type``, whose arguments may be wrong."""
        with refusals():
            return super().create_scheduler(*args, **kwargs)


class _Turns(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Tells keepers when training begins and when weights have moved."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for keeper in self.trainer.keepers:
            keeper.begin(self.trainer.model_wrapped, self.trainer.optimizer)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for keeper in self.trainer.keepers:
            # The share of an epoch is a quotient of counts, whole ones among them.
            keeper.begin_update(self.trainer.model_wrapped, state.global_step, math.floor((state.epoch or 0) + 1e-9))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # The scheduler has not moved yet: this is the rate the update was made with.
        rate = float(self.trainer._get_learning_rate())
        for keeper in self.trainer.keepers:
            keeper.after_update(self.trainer.model_wrapped, rate)
            for name, value in keeper.metrics().items():
                self.trainer._metrics["train"][name].append(value)
