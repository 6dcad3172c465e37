"""An adapter and its base in one model in memory: two models for the price of one, nothing merged.

The sum of base and update is never rounded to the type the base is stored in, as it is in a merged checkpoint.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowshift.errors import InputError, missing_extra
from knowshift.files import digest_file, read_json
from knowshift.models import contents
from knowshift.models.adapter import WEIGHTS, base_of, check_names
from knowshift.models.load import first_line, load_model

if TYPE_CHECKING:
    import torch

# What an adapter may hold besides low-rank updates. Some of it stays when the adapter is turned off, some replaces
# whole modules: such adapters are merged.
WHOLE = (
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter and no model of its own."""
    return (folder / contents.ADAPTER_CONFIG).is_file() and not contents.has_weights(folder)


def fits(base: Path, adapter: Path) -> bool:
    """Whether the two can share one model: LoRA (DoRA too) trained on the very checkpoint ``base``.

    Raises:
        InputError: if the adapter's own base cannot be had.
    """
    config = read_json(adapter / contents.ADAPTER_CONFIG)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        return False
    if config.get("bias", "none") != "none" or any(config.get(key) for key in WHOLE):
        return False
    return contents.digest(base_of(adapter)) == contents.digest(base)


def digest(adapter: Path) -> str:
    """``sha256:...`` of an adapter's weights, for ``run.json``."""
    return f"sha256:{digest_file(_weights(adapter))}"


def load_with_adapter(base: Path, adapter: Path, *, dtype: str | torch.dtype = "auto") -> Any:
    """A ``PeftModel`` in evaluation mode, the adapter on; its ``disable_adapter()`` is the base.

    Raises:
        InputError: an adapter that does not fit its base, or no safetensors in its folder.
    """
    if importlib.util.find_spec("peft") is None:
        raise missing_extra("peft", "train")
    from peft import PeftModel

    from knowshift.models.quiet import quiet

    _weights(adapter)
    model = load_model(base, dtype=dtype)
    try:
        with quiet():
            wrapped = PeftModel.from_pretrained(model, adapter, use_safetensors=True, local_files_only=True)
            check_names(wrapped, adapter, base)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{adapter}: the adapter does not fit its base {base}: {first_line(error)}") from error
    return wrapped.eval()


def _weights(adapter: Path) -> Path:
    if not (adapter / WEIGHTS).is_file():
        raise InputError(f"{adapter}: no {WEIGHTS} beside {contents.ADAPTER_CONFIG} (pickle files are never read)")
    return adapter / WEIGHTS
