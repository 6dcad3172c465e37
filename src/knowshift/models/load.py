"""A checkpoint folder into memory: model, tokenizer, and whether two tokenizers are the same.

Safetensors only, no remote code. torch and transformers are imported on the first call, so that resolving a
name or comparing digests does not wait for them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowshift.errors import InputError, missing_extra
from knowshift.models import contents

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Of a GPU's free memory; the rest is for activations and logits.
WEIGHTS_SHARE = 0.8

PROBE = "Who wrote it?\n  In 1984, Zoë's émigré café cost 12.50 — Río Yí, 東京. <|question|>x<|answer|>"


def load_model(
    path: Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    offload_folder: Path | None = None,
) -> PreTrainedModel:
    """The causal language model of a checkpoint folder, in evaluation mode.

    Args:
        path: a checkpoint folder, as ``resolve`` returns it.
        dtype: ``auto`` (bfloat16 where the processor computes in it, else float32), a torch type or its name.
        device: default CUDA if there is one, else the CPU.
        device_map: instead of ``device``, how accelerate spreads the model over devices (``spread`` says when).
        offload_folder: with ``device_map``, for weights that wait on disk in another layout than the checkpoint's;
            must outlive the model.

    Raises:
        InputError: unreadable weights, an architecture transformers does not know, tensors missing or of the
            wrong shape. A model with freshly drawn weights is never returned.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from knowshift.models.quiet import quiet

    contents.check(path)
    target = torch.device(device or default_device())
    wanted = compute_dtype(target) if dtype == "auto" else dtype
    number_type = getattr(torch, wanted, None) if isinstance(wanted, str) else wanted
    if not isinstance(number_type, torch.dtype):
        raise InputError(f"unknown number type {dtype!r}: auto, float32, bfloat16 or float16")
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=number_type,
                use_safetensors=True,
                output_loading_info=True,
                local_files_only=True,
                device_map=device_map,
                offload_folder=offload_folder,
            )
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{path}: cannot be loaded: {first_line(error)}") from error
    for problem, names in (("missing", info["missing_keys"]), ("of another shape", info["mismatched_keys"])):
        if names:
            raise InputError(f"{path}: {len(names)} tensors are {problem}, the first is {_name(sorted(names)[0])}")
    loaded: PreTrainedModel = (model if device_map else model.to(target)).eval()
    return loaded


def spread(path: Path, dtype: torch.dtype) -> str | None:
    """``auto`` where CUDA has too little free memory for the model: over all GPUs, then memory, then disk.

    Raises:
        InputError: if that is needed and accelerate is not installed.
    """
    import torch

    from knowshift.memory import free_memory

    if default_device().type != "cuda":
        return None
    stored = {"F64": 8, "F32": 4}.get(contents.main_type(path), 2)
    size = sum(file.stat().st_size for file in contents.weight_files(path)) * dtype.itemsize / stored
    if size < WEIGHTS_SHARE * free_memory(torch.device("cuda", torch.cuda.current_device())):
        return None
    if importlib.util.find_spec("accelerate") is None:
        raise missing_extra("accelerate", "train")
    return "auto"


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder.

    Raises:
        InputError: if the folder has none that can be read.
    """
    from transformers import AutoTokenizer

    from knowshift.models.quiet import quiet

    if not any(any(path.glob(pattern)) for pattern in contents.TOKENIZER_FILES):
        raise InputError(f"{path}: no tokenizer files in this folder")
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception on a malformed file
        raise InputError(f"{path}: the tokenizer cannot be read: {first_line(error)}") from error
    return tokenizer


def same_tokenizer(base: Path, tuned: Path) -> None:
    """Make sure that a token id means the same to both models and that both read a text as the same ids.

    A different end or padding token is no difference here: instruction tuning often changes them.

    Raises:
        InputError: naming the first difference.
    """
    ours, theirs = load_tokenizer(base), load_tokenizer(tuned)
    left, right = ours.get_vocab(), theirs.get_vocab()
    where = f"{base} and {tuned} have different tokenizers"
    if len(left) != len(right):
        raise InputError(f"{where}: {len(left)} and {len(right)} tokens")
    if left != right:
        by_id, other = ({index: token for token, index in vocabulary.items()} for vocabulary in (left, right))
        first = min(index for index in by_id.keys() | other.keys() if by_id.get(index) != other.get(index))
        raise InputError(f"{where}: token {first} is {by_id.get(first)!r} and {other.get(first)!r}")
    if ours.bos_token_id != theirs.bos_token_id:
        raise InputError(f"{where}: the beginning-of-sequence id is {ours.bos_token_id} and {theirs.bos_token_id}")
    if _probe(ours) != _probe(theirs):
        raise InputError(f"{where}: the same vocabulary, but the same text is split into different tokens")


def _probe(tokenizer: Any) -> list[int] | None:
    """The ids of a varied text; None where a tokenizer cannot spell it (a word list without an unknown word)."""
    try:
        return list(tokenizer(PROBE).input_ids)
    except Exception:  # what the tokenizers library raises is a bare Exception
        return None


def default_device() -> torch.device:
    """CUDA if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16 (CUDA, AVX512-BF16, AMX).

    On other processors bfloat16 is emulated and several times slower than float32.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Private names, so a torch without them means "no" rather than an error.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware has it, else float32."""
    import torch

    return torch.bfloat16 if has_bf16(device) else torch.float32


def cast_as_stored(model: PreTrainedModel, folder: Path) -> None:
    """Cast ``model``'s weights in place to the types they are stored in by the checkpoint in ``folder``."""
    import torch

    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    stored, usual = contents.stored_types(folder), types[contents.main_type(folder)]
    # Each tensor once: by way of the usual type, what is stored in a wider one would be rounded to that first.
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(types.get(stored.get(name, ""), usual))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its name."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _name(key: object) -> str:
    return str(key[0] if isinstance(key, tuple) else key)
