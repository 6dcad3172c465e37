"""A repaired adapter is the repaired model: its B matrices scaled, and nothing else touched."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import tiny
from knowshift.errors import InputError
from knowshift.models import resolve
from knowshift.repair.adapter import scaled, why_not, write_scaled


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("adapter") / "base", "llama-untied", dtype=torch.float32)


def lora(base: Path, folder: Path, **options: object) -> Path:
    """An adapter whose products are not zero."""
    torch.manual_seed(3)
    settings = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"} | options
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def test_the_reloaded_adapter_is_the_merged_repair(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))
    adapter = lora(base, tmp_path / "lora")
    merged = resolve(str(adapter))
    before, after = load_file(base / "model.safetensors"), load_file(merged / "model.safetensors")
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    coefficients = {name: number / len(moved) for number, name in enumerate(moved[:-1])}  # the last keeps its update
    expected = {
        name: torch.lerp(before[name], after[name], coefficients.get(name, 1.0)) if name in moved else before[name]
        for name in before
    }
    out = write_scaled(adapter, coefficients, tmp_path / "out", "# Card\n")

    again = load_file(resolve(str(out)) / "model.safetensors")
    assert again.keys() == expected.keys() and len(moved) == 14
    for name, tensor in expected.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-6)
    assert torch.equal(again[moved[0]], before[moved[0]]), "a coefficient of 0 is the base"
    assert torch.equal(again[moved[-1]], after[moved[-1]]), "a matrix without one keeps its update"
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out).eval()
    written = AutoModelForCausalLM.from_pretrained(base)
    written.load_state_dict(expected)
    ids = torch.arange(20)[None]
    torch.testing.assert_close(loaded(ids).logits, written(ids).logits, rtol=0, atol=1e-4)
    assert (out / "README.md").read_text() == "# Card\n" and (out / "tokenizer.json").is_file()
    assert (out / "adapter_config.json").read_bytes() == (adapter / "adapter_config.json").read_bytes()


def test_only_b_is_scaled_and_rounded_once(base: Path, tmp_path: Path) -> None:
    adapter = lora(base, tmp_path / "lora", target_modules=["q_proj", "embed_tokens"])
    stored = load_file(adapter / "adapter_model.safetensors")
    before = {name: tensor.bfloat16() for name, tensor in stored.items() if "lora_" in name}
    made = scaled(before, 0.3)
    scales = {name for name in before if not torch.equal(before[name], made[name])}
    assert scales == {name for name in before if "lora_B" in name or "lora_embedding_B" in name} and len(scales) == 3
    for name in scales:
        assert torch.equal(made[name], (before[name].double() * 0.3).bfloat16())
    untouched = scaled(before, 1.0)
    assert all(torch.equal(untouched[name], before[name]) for name in before)


def test_wrappers_in_front_do_not_matter(base: Path, tmp_path: Path) -> None:
    before = load_file(lora(base, tmp_path / "lora") / "adapter_model.safetensors")
    made = scaled(before, {"language_model.model.layers.1.mlp.up_proj.weight": 0.0})
    zero = [name for name, tensor in made.items() if not tensor.any()]
    assert zero == ["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
    ],
)
def test_what_is_more_than_products_is_refused(base: Path, tmp_path: Path, options: dict, named: str) -> None:
    adapter = lora(base, tmp_path / "lora", target_modules=["q_proj"], **options)
    line = why_not(adapter)
    assert line is not None and f" {named} " in line.replace(",", " ") and "full checkpoint" in line
    assert "\n" not in line
    with pytest.raises(InputError) as refused:
        write_scaled(adapter, 0.5, tmp_path / "out", "")
    assert str(refused.value) == line and not (tmp_path / "out").exists()


def test_other_kinds_and_whole_tensors_are_refused(base: Path, tmp_path: Path) -> None:
    adapter = lora(base, tmp_path / "lora")
    assert why_not(adapter) is None
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
    assert "IA3, not LORA" in str(why_not(adapter))
    whole = lora(base, tmp_path / "whole", target_modules=["embed_tokens"])
    with pytest.raises(InputError, match=r"full checkpoint: tensor '.*embed_tokens.*' is neither A nor B of a matrix"):
        write_scaled(whole, 0.5, tmp_path / "out", "")
