"""What a method of fine-tuning is: its options, what it hands TRL's trainer, and what it does while that trains.

The trainer is TRL's, always. Two classes part the work by time: a ``Method`` is asked before training, a ``Keeper``
lives while it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from knowshift.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from knowshift.train.data import Pair
    from knowshift.train.options import TrainOptions
    from knowshift.train.trainer import Trainer


def _joined(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# Names or numbers separated by commas; a list as YAML and JSON have it, or one number, is taken as well.
Listed = Annotated[str, BeforeValidator(_joined), Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Run:
    """What a method may know of the run it works for: base folder, tokenizer, the checked pairs, all options.

    Replay is not among the pairs: it is trained on as it stands.
    """

    base: Path
    tokenizer: PreTrainedTokenizerBase
    pairs: list[Pair]
    options: TrainOptions


class Method(Settings):
    """One way to fine-tune. Its fields are its options; every hook does nothing by default.

    Attributes:
        title: what it is called in tables and on a model card.
        source: where it comes from.
        adapter: whether an adapter is trained in place of the weights. Of two methods at most one may.
        with_adapter: whether it means something where an adapter is trained.
        divisible: whether it can train a model that is divided among processes.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    adapter: ClassVar[bool] = False
    with_adapter: ClassVar[bool] = True
    divisible: ClassVar[bool] = True

    def examples(self, model: PreTrainedModel, run: Run) -> list[Pair]:
        """The pairs to train on, in place of ``run.pairs``."""
        return run.pairs

    def prepare(self, model: PreTrainedModel, run: Run) -> None:
        """Change the loaded base before a trainer sees it, for example say which parameters need a gradient.

        Raises:
            InputError: an option that does not fit this model, naming option and model.
        """

    def arguments(self, model: PreTrainedModel, run: Run) -> dict[str, Any]:
        """Keyword arguments for ``trl.SFTTrainer`` beside the common ones."""
        return {}

    def keeper(self, run: Run) -> Keeper | None:
        """What acts at every step of training, if anything does."""
        return None

    def leave(self, folder: Path) -> None:
        """Write further files beside the trained weights."""


class Keeper:
    """Acts between the steps of TRL's loop. Every hook does nothing by default.

    Under several processes or FSDP every process has its own keeper, and parameters may be ``DTensor``: what is done
    weight by weight is done on the local part of each.

    Attributes:
        edits: whether it changes weights or gradients in place. DeepSpeed keeps both elsewhere, so not with that.
    """

    edits: ClassVar[bool] = False

    def join(self, trainer: Trainer) -> None:
        """The trainer is there: from now on its data, collator and processes can be asked."""

    def begin(self, model: Module, optimizer: Optimizer) -> None:
        """Training starts, or goes on after a resume: the weights then are the resumed ones, not the base's."""

    def begin_update(self, model: Module, step: int, epoch: int) -> None:
        """The first micro-batch of an update comes next. Updates and passes over the data are counted from 0, and
        after a resume go on where they were."""

    def loss(self, model: Module, inputs: dict[str, Any], items: Tensor | int | None) -> Tensor | None:
        """A term added to the loss of a micro-batch.

        Args:
            model: as the trainer calls it, wrapped or not.
            inputs: what the trainer gives the model: ``input_ids``, ``attention_mask``, ``labels``.
            items: completion tokens of the whole update over all micro-batches; a sum over tokens divided by this is
                weighted as TRL's own loss is. None: take the mean.
        """
        return None

    def before_update(self, model: Module) -> None:
        """All gradients of an update are there; they are not clipped yet."""

    def after_update(self, model: Module, learning_rate: float) -> None:
        """The optimizer has moved the weights with this learning rate."""

    def finish(self, model: Module) -> None:
        """All updates are made, and what is to be written is in the model; this may still change it."""

    def metrics(self) -> dict[str, float]:
        """Figures of the last update for the training log, by column name."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What a resume needs beside weights, optimizer and the random states that transformers saves."""
        return {}

    def resume(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave; called before ``begin``."""
