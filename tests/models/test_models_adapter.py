"""An adapter folder is its base plus the low-rank product, as one checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import tiny
from knowshift.errors import InputError
from knowshift.models import resolve
from knowshift.models.cache import once


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def adapter(base: Path, folder: Path, seed: int = 3) -> Path:
    """A LoRA adapter with a product that is not zero, saved as PEFT saves it."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_merged_equals_base_plus_product(tmp_path: Path, dtype: torch.dtype) -> None:
    base = tiny.checkpoint(tmp_path / "base", dtype=dtype)
    before = load_file(base / "model.safetensors")
    low_rank = load_file(adapter(base, tmp_path / "adapter") / "adapter_model.safetensors")
    after = load_file(resolve(str(tmp_path / "adapter")) / "model.safetensors")
    assert after.keys() == before.keys()
    for name, old in before.items():
        stem = "base_model.model." + name.removesuffix(".weight")
        expected = old
        if f"{stem}.lora_A.weight" in low_rank:
            product = low_rank[f"{stem}.lora_B.weight"] @ low_rank[f"{stem}.lora_A.weight"]
            expected = (old.float() + 4 / 2 * product).to(dtype)
            assert not torch.equal(expected, old)
        assert after[name].dtype == dtype
        assert torch.equal(after[name], expected), name


def test_merged_once_and_again_when_the_adapter_changes(base_folder: Path, tmp_path: Path) -> None:
    first = resolve(str(adapter(base_folder, tmp_path / "adapter")))
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert resolve(str(tmp_path / "adapter")) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    assert (first / "tokenizer.json").read_bytes() == (base_folder / "tokenizer.json").read_bytes()
    adapter(base_folder, tmp_path / "adapter", seed=4)
    assert resolve(str(tmp_path / "adapter")) != first


def test_adapter_without_its_base(base_folder: Path, tmp_path: Path) -> None:
    folder = adapter(base_folder, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/no/base"}))
    with pytest.raises(InputError, match="base cannot be had: /no/base"):
        resolve(str(folder))


def test_adapter_of_another_model(base_folder: Path, tmp_path: Path, own_cache: Path) -> None:
    folder = adapter(base_folder, tmp_path / "adapter")
    wider = tiny.checkpoint(tmp_path / "wider", hidden=64)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(wider)}))
    with pytest.raises(InputError, match="does not fit its base"):
        resolve(str(folder))
    assert not list((own_cache / "models").glob("merged-*")), "nothing half-made may stay"


def test_pickled_adapter(base_folder: Path, tmp_path: Path) -> None:
    folder = adapter(base_folder, tmp_path / "adapter")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        resolve(str(folder))


def test_two_builders_at_once_build_once(tmp_path: Path) -> None:
    import threading
    import time

    built: list[int] = []

    def build(partial: Path) -> None:
        built.append(1)
        time.sleep(0.3)
        (partial / "done").write_text("whole")

    seen: list[str] = []
    threads = [
        threading.Thread(target=lambda: seen.append((once(tmp_path / "x", build) / "done").read_text()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1] and seen == ["whole"] * 4


def test_leftovers_of_a_killed_builder_are_removed(tmp_path: Path) -> None:
    stale = tmp_path / ".x.99999.partial"
    stale.mkdir()
    once(tmp_path / "x", lambda partial: None)
    assert not stale.exists() and (tmp_path / "x").is_dir()
