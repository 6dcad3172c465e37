"""The ways to fine-tune, by name; one file each.

A method says what to hand TRL's trainer beside the common settings, and how the result is written. The trainer is
TRL's, always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowshift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from knowshift.train.options import TrainOptions

NAMES = ("sft", "lora")


@dataclass(frozen=True, slots=True)
class Method:
    """One way to fine-tune.

    Attributes:
        title: what it is called on a model card.
        arguments: keyword arguments for ``trl.SFTTrainer`` beside the common ones, given model and options.
        write: writes the trained model to a folder: ``write(base, model, folder, options)``.
    """

    title: str
    arguments: Callable[[PreTrainedModel, TrainOptions], dict[str, Any]]
    write: Callable[[Path, PreTrainedModel, Path, TrainOptions], None]


def get(name: str) -> Method:
    """The method called ``name``.

    Raises:
        InputError: if there is none.
    """
    if name not in NAMES:
        raise InputError(f"--method {name}: unknown; choose from {', '.join(NAMES)}")
    method: Method = import_module(f"{__name__}.{name}").METHOD
    return method
