"""The model that is to be trained, in the memory of the processes that train it; knows models and processes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from knowshift import models
from knowshift.train import processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_to_train(base: Path) -> PreTrainedModel:
    """The model of a checkpoint folder in float32.

    What will be divided is never whole on a device: it waits in the computer's memory, 4 bytes a weight, of every
    process, or where the launcher says so (``fsdp_cpu_ram_efficient_loading``) of the first alone. The others then
    have its shapes, and get their parts when it is divided.
    """
    if processes.receives():
        return _shapes(base)
    return models.load_model(base, dtype="float32", device="cpu" if processes.shards() else None)


def _shapes(base: Path) -> PreTrainedModel:
    """The model with memory of its own for every weight, as accelerate wants it, but none of it touched."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base, local_files_only=True)
    # Buffers that no file holds, such as rotary frequencies, are computed, so every process needs its own.
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(torch.empty_like(parameter, device="cpu"))
    model.tie_weights()
    return model.eval()
