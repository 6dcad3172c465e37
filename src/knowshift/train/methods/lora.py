"""LoRA: the update of each weight matrix is a product of two thin ones (Hu et al., 2021), by PEFT.

The adapter's matrices are float32. Rank 16, alpha 32 on every linear layer inside the blocks are common defaults;
the paper compares with LoRA once and does not give its settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from knowshift.errors import InputError
from knowshift.train.methods.method import Method, Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Lora(Method):
    """A low-rank adapter on linear layers."""

    title: ClassVar[str] = "LoRA"
    source: ClassVar[str] = "Hu et al., arXiv 2106.09685"
    adapter: ClassVar[bool] = True

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0, allow_inf_nan=False)
    dropout: float = Field(default=0, ge=0, lt=1)
    targets: str = Field(default="all-linear", min_length=1, description="module names, separated by commas")

    def arguments(self, model: PreTrainedModel, run: Run) -> dict[str, Any]:
        """The adapter's configuration for TRL to apply.

        Raises:
            InputError: if a target names no module of the model.
        """
        from peft import LoraConfig

        targets: str | list[str] = self.targets
        if targets != "all-linear":
            targets = [name.strip() for name in self.targets.split(",") if name.strip()]
            modules = {name for name, _ in model.named_modules()}
            for target in targets:
                if not any(name == target or name.endswith(f".{target}") for name in modules):
                    raise InputError(f"--set lora.targets={target}: no module of this model has this name")
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )
        return {"peft_config": config}
