"""Full fine-tuning: every weight is trained (paper, section 3)."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from knowshift.models.write import write_like
from knowshift.train.methods import Method
from knowshift.train.options import TrainOptions


def arguments(model: PreTrainedModel, options: TrainOptions) -> dict[str, Any]:
    """Nothing beyond the common settings."""
    return {}


def write(base: Path, model: PreTrainedModel, folder: Path, options: TrainOptions) -> None:
    """A checkpoint folder in the base's stored types."""
    write_like(base, model, folder)


METHOD = Method("Full fine-tuning", arguments, write)
