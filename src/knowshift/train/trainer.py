"""TRL's SFTTrainer, with keepers called between its steps. No loop of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from knowshift.train.methods.method import Keeper
from knowshift.train.trl_settings import refusals


class Trainer(SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """Without keepers it trains as ``trl.SFTTrainer`` does, bit for bit."""

    def __init__(self, *args: Any, keepers: Sequence[Keeper] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keepers = list(keepers)
        self.add_callback(_Turns(self))

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
        for keeper in self.keepers:
            term = keeper.loss(model, inputs, num_items_in_batch)
            if term is not None:
                loss = loss + term
        return (loss, *rest) if return_outputs else loss

    def training_step(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch, forward and back; after an update's last one its gradients are shown to keepers."""
        loss: torch.Tensor = super().training_step(model, *args, **kwargs)
        if self.accelerator.sync_gradients:
            for keeper in self.keepers:
                keeper.before_update(model)
        return loss

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The optimizer of ``optim``, whose library may be missing or whose arguments wrong."""
        with refusals():
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

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # The scheduler has not moved yet: this is the rate the update was made with.
        rate = float(self.trainer._get_learning_rate())
        for keeper in self.trainer.keepers:
            keeper.after_update(self.trainer.model_wrapped, rate)
            for name, value in keeper.metrics().items():
                self.trainer._metrics["train"][name].append(value)
