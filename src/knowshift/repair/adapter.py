"""A repair of a LoRA model written back as an adapter: a coefficient of a matrix's update scales its B.

LoRA adds s B A to a matrix W (Hu et al., arXiv 2106.09685), so W + a s B A is the same adapter with a B in place of B:
exactly, but for one rounding to the type in which B is stored. That holds for repairs that keep a share of each
matrix's update (coefficients, interpolation), of adapters that are nothing but such products. A repair that takes out
single weights is no product of that rank, and is written as a full checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from knowshift.errors import InputError
from knowshift.files import atomic_folder, read_json
from knowshift.models import contents
from knowshift.models.adapter import PREFIX, WEIGHTS
from knowshift.models.resident import WHOLE
from knowshift.weights.output import CARD
from knowshift.weights.regions import unwrapped

if TYPE_CHECKING:
    from torch import Tensor

_FIRST, _SECOND = (".lora_A.weight", ".lora_embedding_A"), (".lora_B.weight", ".lora_embedding_B")
# Variants of LoRA whose update is no plain product, or whose beginning is taken out of the base's own weights.
_VARIANTS = (
    "use_dora", "lora_bias", "use_qalora", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config",
)  # fmt: skip
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def why_not(adapter: Path) -> str | None:
    """Why no repair of the PEFT adapter in this folder can be written as an adapter, in one line; None if it can."""
    config = read_json(adapter / contents.ADAPTER_CONFIG)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        return f"{adapter}: a repair is written as a full checkpoint: the adapter is {kind or 'of no kind'}, not LORA"
    found = [name for name in (*_VARIANTS, *WHOLE) if config.get(name)]
    if config.get("bias", "none") != "none":
        found.append("bias")
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_MOVES_BASE):
        found.append(f"init_lora_weights={begun}")
    if found:
        return (
            f"{adapter}: a repair is written as a full checkpoint: with {', '.join(found)} the adapter is more than "
            "products of two matrices"
        )
    return None


def scaled(tensors: Mapping[str, Tensor], coefficients: Mapping[str, float] | float) -> dict[str, Tensor]:
    """The tensors of an adapter in which each matrix's update is multiplied by its coefficient.

    Args:
        tensors: as PEFT names them.
        coefficients: by the matrix's name in the merged checkpoint (``model.layers.0.mlp.up_proj.weight``), whatever
            wrappers stand in front; a matrix that is not there keeps its update. Or one for all.

    Raises:
        ValueError: naming a tensor that is neither A nor B of a matrix.
    """
    several = coefficients if isinstance(coefficients, Mapping) else {}
    otherwise = 1.0 if isinstance(coefficients, Mapping) else float(coefficients)
    by_matrix = {unwrapped(name): value for name, value in several.items()}
    made = {}
    for name, tensor in tensors.items():
        end = next((end for end in (*_FIRST, *_SECOND) if name.endswith(end)), None)
        if end is None:
            raise ValueError(f"tensor {name!r} is neither A nor B of a matrix")
        made[name] = tensor
        if end in _SECOND:
            matrix = unwrapped(name.removeprefix(PREFIX).removesuffix(end) + ".weight")
            made[name] = (tensor.double() * by_matrix.get(matrix, otherwise)).to(tensor.dtype)
    return made


def write_scaled(adapter: Path, coefficients: Mapping[str, float] | float, out: Path, card: str) -> Path:
    """Write the repaired adapter as a folder that loads where ``adapter`` does, on the same base.

    Args:
        adapter: a PEFT adapter folder.
        coefficients: as for ``scaled``.
        out: the folder to write, whole or not at all; configuration and tokenizer are the adapter's own files.
        card: the text of its model card.

    Raises:
        InputError: with the line of ``why_not``, or for tensors that belong to no matrix.
    """
    from safetensors.torch import load_file, save_file

    refusal = why_not(adapter)
    if refusal is not None:
        raise InputError(refusal)
    try:
        made = scaled(load_file(adapter / WEIGHTS), coefficients)
    except ValueError as error:
        raise InputError(f"{adapter / WEIGHTS}: a repair is written as a full checkpoint: {error}") from error
    with atomic_folder(out) as folder:
        save_file(made, folder / WEIGHTS, {"format": "pt"})
        shutil.copyfile(adapter / contents.ADAPTER_CONFIG, folder / contents.ADAPTER_CONFIG)
        contents.copy_tokenizer(adapter, folder)
        (folder / CARD).write_text(card, "utf-8")
    return out
