"""PEFT adapter folders as the tuned side: what is compared is base plus exactly what the adapter adds."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import tiny
from knowshift.errors import InputError
from knowshift.models import resolve
from knowshift.weights.checkpoint import SINGLE, Checkpoint
from knowshift.weights.diff import diff
from knowshift.weights.pairing import pair

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LINEAR = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))


def adapted(base: Path, folder: Path, *, std: float = 0.05, **options):
    """An adapter whose every part is trained, saved as PEFT saves it; and the wrapped model itself, in float32."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(**{"r": 2, "lora_alpha": 4, "target_modules": LINEAR, **options}))
    with torch.no_grad():
        for _, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * std)
    model.save_pretrained(folder)
    return model.eval()


KINDS = {
    "lora": {},
    "rank-stabilized": {"use_rslora": True, "bias": "all"},
    "dora": {"use_dora": True},
    "head and norms saved whole": {"modules_to_save": ["lm_head", "input_layernorm"]},
    "embeddings saved whole": {"modules_to_save": ["embed_tokens"]},
    "lora on the head": {"target_modules": [*LINEAR, "lm_head"]},
    "lora on the embeddings": {"target_modules": [*LINEAR, "embed_tokens"]},
}


@pytest.mark.parametrize("architecture", ["llama", "llama-untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_checkpoint_computes_what_the_adapter_computes(tmp_path: Path, kind: str, architecture: str) -> None:
    base = tiny.checkpoint(tmp_path / "base", architecture, dtype=torch.float32)
    model = adapted(base, tmp_path / "adapter", **KINDS[kind])
    merged = resolve(str(tmp_path / "adapter"))
    loaded = AutoModelForCausalLM.from_pretrained(merged, dtype="auto").eval()
    ids = torch.arange(1, 40)[None]
    with torch.no_grad():
        assert not torch.allclose(AutoModelForCausalLM.from_pretrained(base)(ids).logits, model(ids).logits, atol=1e-3)
        assert torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-5)
    pairs, notes = pair(Checkpoint.open(base), Checkpoint.open(merged), "all")
    untied = architecture == "llama" and ("embed" in kind or "head" in kind)
    assert (HEAD in {entry.name for entry in pairs}) == (untied or architecture == "llama-untied")
    assert bool(notes) == untied, notes
    result = diff(base, merged, region="blocks")
    by_module = {row["module"]: row["changed"] for row in result.modules.to_dicts() if row["layer"] == 0}
    assert {module for module, changed in by_module.items() if changed} == {"q", "v", "down"}


def test_the_card_says_what_storing_in_base_types_costs(tmp_path: Path) -> None:
    base = tiny.checkpoint(tmp_path / "base", dtype=torch.bfloat16)
    model = adapted(base, tmp_path / "adapter", std=0.004)
    merged = resolve(str(tmp_path / "adapter"))
    exact = dict(model.merge_and_unload().named_parameters())
    before, after = load_file(base / SINGLE), load_file(merged / SINGLE)
    moved = kept = 0
    for name, old in before.items():
        assert after[name].dtype == torch.bfloat16
        assert torch.equal(after[name], exact[name].to(torch.bfloat16)), name
        different = old.float() != exact[name]
        moved += int(different.sum())
        kept += int((different & (after[name] == old)).sum())
    assert 0.05 * moved < kept < moved
    card = (merged / "README.md").read_text()
    assert f"Of {moved:,} weights" in card and f"{kept:,} ({kept / moved:.1%}) keep the base's value" in card
    assert diff(base, merged).metrics["changed"] == moved - kept


def test_nothing_is_lost_in_float32(tmp_path: Path) -> None:
    base = tiny.checkpoint(tmp_path / "base", dtype=torch.float32)
    adapted(base, tmp_path / "adapter")
    assert "nothing was rounded" in (resolve(str(tmp_path / "adapter")) / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop(min(tensors)), "1 of its tensors are missing, the first is 'base_model.*lora_A"),
        (lambda tensors: tensors.update(ghost=torch.zeros(2)), "1 of its tensors fit nothing there.*'ghost'"),
        (
            lambda tensors: [
                tensors.update({name.replace("layers", "h"): tensors.pop(name)}) for name in list(tensors)
            ],
            "12 of its tensors are missing",
        ),
    ],
)
def test_an_adapter_that_would_be_applied_in_part_is_refused(base_folder: Path, tmp_path: Path, change, words) -> None:
    adapted(base_folder, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(InputError, match=words) as caught:
        resolve(str(tmp_path / "adapter"))
    assert "\n" not in str(caught.value)


def test_an_adapter_trained_on_a_grown_vocabulary_does_not_fit(base_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    model.resize_token_embeddings(410, mean_resizing=False)
    model = get_peft_model(model, LoraConfig(r=2, target_modules=LINEAR, modules_to_save=["embed_tokens", "lm_head"]))
    model.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base_folder)
    with pytest.raises(InputError, match=r"does not fit its base") as caught:
        resolve(str(tmp_path / "adapter"))
    assert re.search("410|size mismatch", str(caught.value))


def test_what_the_adapter_leaves_alone_keeps_its_bits_in_every_type(tmp_path: Path) -> None:
    base = tiny.checkpoint(tmp_path / "base", dtype=torch.bfloat16)
    before = load_file(base / SINGLE)
    for name in before:
        if "norm" in name or "q_proj" in name:  # as where a few sensitive tensors are stored in float32
            before[name] = before[name].float() + 1e-4
    save_file(before, base / SINGLE, {"format": "pt"})
    model = adapted(base, tmp_path / "adapter").merge_and_unload()
    after = load_file(resolve(str(tmp_path / "adapter")) / SINGLE)
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, model.get_parameter(name).to(tensor.dtype)), name
        assert torch.equal(tensor, before[name]) == (not any(module in name for module in LINEAR)), name
