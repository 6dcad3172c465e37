"""A PEFT adapter folder as an ordinary checkpoint: merged onto its base, once, in the user's cache."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowshift.errors import InputError, missing_extra
from knowshift.files import digest_file, read_json, write_json
from knowshift.models import contents
from knowshift.models.cache import cache_folder, once
from knowshift.progress import bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # what PEFT puts before a model's own names
_WAY = "2"  # how adapters are merged: another number makes what older versions cached be merged again


def merged(folder: Path) -> Path:
    """The checkpoint in the cache that equals the adapter in ``folder`` applied to its base.

    The sum is taken in float32 and stored in the base's own types; the model card says what that rounding cost. The
    cache is keyed by the content of both, so an adapter that was trained again is merged again.

    Raises:
        InputError: no safetensors in the folder, the base unknown, or an adapter that does not fit it.
    """
    if importlib.util.find_spec("peft") is None:
        raise missing_extra("peft", "train")
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: no {WEIGHTS} beside {contents.ADAPTER_CONFIG} (pickle files are never read)")
    base = base_of(folder)
    parts = (
        _WAY,
        digest_file(folder / contents.ADAPTER_CONFIG),
        digest_file(folder / WEIGHTS),
        contents.digest(base),
    )
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return once(cache_folder() / "models" / f"merged-{key}", lambda partial: _merge(base, folder, partial))


def base_of(folder: Path) -> Path:
    """The checkpoint folder of the base that the adapter in ``folder`` was trained on."""
    from knowshift.models import names, smollm2

    config = read_json(folder / contents.ADAPTER_CONFIG)
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name:
        raise InputError(f'{folder / contents.ADAPTER_CONFIG}: "base_model_name_or_path" is missing')
    # The embedded model's cache path differs from user to user, its folder name does not.
    if Path(name).name == smollm2.FOLDER:
        name = names.EMBEDDED
    try:
        return names.resolve(name)
    except InputError as error:
        raise InputError(f"{folder}: the adapter's base cannot be had: {error}") from error


def _merge(base: Path, adapter: Path, target: Path) -> None:
    from peft import PeftModel

    from knowshift.models.load import load_model
    from knowshift.models.quiet import quiet
    from knowshift.models.write import write_like

    with bar("Merging the adapter onto its base", total=None), quiet():
        model = load_model(base, dtype="float32", device="cpu")
        try:
            wrapped = PeftModel.from_pretrained(model, adapter, use_safetensors=True, local_files_only=True)
            check_names(wrapped, adapter, base)
            _untie(wrapped)
            model = wrapped.merge_and_unload(safe_merge=True)
        except (ValueError, RuntimeError, KeyError) as error:
            lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
            reason = lines[0] if not lines[0].endswith(":") else " ".join(lines[:2])
            raise InputError(f"{adapter}: the adapter does not fit its base {base}: {reason}") from error
    lost = _lost(base, model)
    write_like(base, model, target)
    config = read_json(target / "config.json")
    if config.get("tie_word_embeddings", True) and not model.config.tie_word_embeddings:
        # The adapter changed one of two tied matrices; base's configuration would tie them again on loading.
        write_json(target / "config.json", config | {"tie_word_embeddings": False})
    (target / "README.md").write_text(
        f"# {adapter.name}, merged\n\nThe adapter `{adapter}` applied to `{base}` by knowshift.\n\n{lost}\n", "utf-8"
    )


def check_names(wrapped: Any, adapter: Path, base: Path) -> None:
    """PEFT passes over tensors it finds no place for, and leaves untrained what it finds no tensor for.

    Raises:
        InputError: naming the first tensor that is missing from ``adapter`` or fits nothing in ``base``.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(adapter / WEIGHTS, framework="numpy") as file:
        stored = set(file.keys())
    known = {name.replace(".base_layer.", ".") for name in wrapped.get_base_model().state_dict()}
    expected = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    # Embeddings are saved whole besides, when they were resized or adapted.
    whole = {name for name in stored if name.removeprefix(PREFIX).replace(".base_layer.", ".") in known}
    for names, fault in ((expected - stored, "are missing"), (stored - expected - whole, "fit nothing there")):
        if names:
            raise InputError(
                f"{adapter}: the adapter does not fit its base {base}: {len(names)} of its tensors {fault}, the "
                f"first is {min(names)!r}"
            )


def _untie(wrapped: Any) -> None:
    """Give an adapted head its own weights where it shares the embeddings': only one of the two is adapted."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = wrapped.get_base_model()
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    adapted = [isinstance(part, BaseTunerLayer) for part in (head, embeddings)]
    inner, other = (part.get_base_layer() if isinstance(part, BaseTunerLayer) else part for part in (head, embeddings))
    if adapted[0] != adapted[1] and getattr(inner, "weight", None) is getattr(other, "weight", inner):
        inner.weight = torch.nn.Parameter(inner.weight.detach().clone(), requires_grad=False)


def _lost(base: Path, model: PreTrainedModel) -> str:
    """What storing the sum in base's types does to the update, in words."""
    import torch
    from safetensors import safe_open

    types = {"F16": torch.float16, "BF16": torch.bfloat16}
    sums = dict(model.named_parameters())
    moved = kept = 0
    for file in contents.weight_files(base):
        with safe_open(file, framework="pt") as stored:
            for name in set(stored.keys()) & sums.keys():
                kind = stored.get_slice(name).get_dtype()
                before, after = stored.get_tensor(name), sums[name].detach()
                if kind in types and before.shape == after.shape:
                    different = before.float() != after
                    moved += int(different.sum())
                    kept += int((different & (after.to(before.dtype) == before)).sum())
    if not moved:
        return "The sum was taken and stored in float32; nothing was rounded."
    return (
        f"The sum was taken in float32 and rounded once to the types in which the base is stored. Of {moved:,} weights "
        f"of 16 bits that the adapter moves, {kept:,} ({kept / moved:.1%}) keep the base's value, because the change "
        "is below half a step of their type."
    )
