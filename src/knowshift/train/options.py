"""Everything a training run depends on, checked before anything is loaded."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from knowshift.errors import InputError
from knowshift.settings import Settings


class TrainOptions(Settings):
    """How to fine-tune. Learning rate, batch size, epochs and schedule are the paper's (section 3).

    The paper names AdamW without its settings. Betas and epsilon are torch's, there is no weight decay (which
    would pull every weight toward zero and so count as a change of knowledge), and gradients are clipped to
    norm 1: the defaults of transformers.
    """

    model: str = Field(description="the base: a folder, a hub id, an adapter folder or smollm2")
    data: Path = Field(description='JSONL with "prompt" and "completion"')
    out: Path = Field(description="the checkpoint folder to write")
    method: str = Field(default="sft", description="one of knowshift.train.methods")
    learning_rate: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=8, ge=1, description="sequences for one update")
    epochs: float = Field(default=1, gt=0, allow_inf_nan=False)
    max_steps: int | None = Field(default=None, ge=1, description="updates, in place of epochs")
    scheduler: Literal["cosine", "linear", "constant"] = Field(default="cosine")
    warmup: float = Field(default=0, ge=0, allow_inf_nan=False, description="steps, or below 1 a share of all steps")
    weight_decay: float = Field(default=0, ge=0, allow_inf_nan=False)
    max_grad_norm: float = Field(default=1, ge=0, allow_inf_nan=False, description="0 does not clip")
    seed: int = Field(default=0, ge=0, lt=2**32, description="order of the data, first weights of an adapter, dropout")
    bf16: bool | None = Field(default=None, description="bfloat16 autocast; by default where the processor has it")
    gradient_checkpointing: bool = Field(default=False, description="less memory, a quarter more time")
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: float = Field(default=32, gt=0, allow_inf_nan=False)
    lora_dropout: float = Field(default=0, ge=0, lt=1)
    lora_targets: str = Field(default="all-linear", min_length=1, description="module names, separated by commas")
    merge: bool = Field(default=False, description="write a full checkpoint instead of an adapter")

    @model_validator(mode="after")
    def _no_option_without_effect(self) -> Self:
        if self.method == "lora":
            return self
        for name, field in type(self).model_fields.items():
            if (name == "merge" or name.startswith("lora_")) and getattr(self, name) != field.default:
                raise InputError(f"--{name.replace('_', '-')} has no effect with --method {self.method}")
        return self

    def settings(self) -> dict[str, Any]:
        """The options as plain values; those of other methods left out."""
        values = self.model_dump(mode="json")
        if self.method != "lora":
            values = {name: value for name, value in values.items() if not name.startswith("lora_")}
            del values["merge"]
        return values
