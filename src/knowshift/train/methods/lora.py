"""LoRA: the update of each weight matrix is a product of two thin ones (Hu et al., 2021), by PEFT.

The adapter's matrices are float32. Rank 16, alpha 32 on every linear layer inside the blocks are common defaults;
the paper compares with LoRA once and does not give its settings.
"""

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from knowshift.errors import InputError
from knowshift.models import contents
from knowshift.models.write import write_like
from knowshift.train.methods import Method
from knowshift.train.options import TrainOptions


def arguments(model: PreTrainedModel, options: TrainOptions) -> dict[str, Any]:
    """The adapter's configuration for TRL to apply.

    Raises:
        InputError: if a target names no module of the model.
    """
    targets: str | list[str] = options.lora_targets
    if targets != "all-linear":
        targets = [name.strip() for name in options.lora_targets.split(",") if name.strip()]
        modules = {name for name, _ in model.named_modules()}
        for target in targets:
            if not any(name == target or name.endswith(f".{target}") for name in modules):
                raise InputError(f"--lora-targets {target}: no module of this model has this name")
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    return {"peft_config": config}


def write(base: Path, model: PeftModel, folder: Path, options: TrainOptions) -> None:
    """The adapter folder, or with ``merge`` a checkpoint folder in the base's stored types."""
    if options.merge:
        write_like(base, model.merge_and_unload(safe_merge=True), folder)
        return
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder, safe_serialization=True)
    contents.copy_tokenizer(base, folder)


METHOD = Method("LoRA", arguments, write)
