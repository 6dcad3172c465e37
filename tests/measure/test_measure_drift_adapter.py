"""An adapter and its base in one model: the figures of the merged checkpoint, without merging."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import tiny
from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.measure.token_drift import drift
from knowshift.models.adapter import merged

FACTS = [Fact(str(index), f"Where is {'abc ' * index}?", ("Lima, a city",)) for index in range(4)]
BLOCKS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def adapter(base, folder, *, zero=False, scale=0.3, **options):
    """A LoRA adapter on ``base`` whose update is not zero, unless asked for."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, **{"target_modules": BLOCKS, **options})
    wrapped = get_peft_model(model, config)
    if not zero:
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter.add_(scale * torch.randn_like(parameter))
    wrapped.save_pretrained(folder)
    return folder


def merges(cache):
    return list((cache / "models").glob("merged-*")) if cache.exists() else []


ADAPTERS = {
    "lora": {},
    "dora": {"use_dora": True},
    "rank-stabilised": {"use_rslora": True, "lora_alpha": 16},
    "head": {"target_modules": [*BLOCKS, "lm_head"]},
    "embeddings": {"target_modules": ["embed_tokens", "o_proj"]},
}


@pytest.mark.parametrize("architecture", ["llama", "llama-untied"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_one_model_says_what_the_merged_checkpoint_says(architecture, kind, tmp_path, cache):
    base = tiny.checkpoint(tmp_path / "base", architecture, dtype=torch.float32)
    tuned = adapter(base, tmp_path / "adapter", **ADAPTERS[kind])
    table, metrics = drift(base, tuned, FACTS)
    assert not merges(cache)
    expected, by_merging = drift(base, merged(tuned), FACTS)
    for name in ("kl_tuned_base", "kl_base_tuned", "logprob_base", "logprob_tuned", "prompt_kl_tuned_base"):
        assert table[name].to_list() == pytest.approx(expected[name].to_list(), rel=1e-4), name
    assert metrics["kl_tuned_base"] == pytest.approx(by_merging["kl_tuned_base"], rel=1e-4)
    assert metrics["kl_tuned_base"] > 1e-4


def test_paper_mode_reads_each_prompt_with_its_own_side(tmp_path, cache):
    base = tiny.checkpoint(tmp_path / "base", "qwen2", dtype=torch.float32)
    tuned = adapter(base, tmp_path / "adapter")
    table, _ = drift(base, tuned, FACTS, mode="paper")
    expected, _ = drift(base, merged(tuned), FACTS, mode="paper")
    assert table["kl_tuned_base"].to_list() == pytest.approx(expected["kl_tuned_base"].to_list(), rel=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_that_does_nothing_is_no_drift(dtype, tmp_path, cache):
    base = tiny.checkpoint(tmp_path / "base")
    table, _ = drift(base, adapter(base, tmp_path / "adapter", zero=True), FACTS, dtype=dtype)
    assert table["kl_tuned_base"].max() == 0


@pytest.mark.parametrize("options", [{"modules_to_save": ["lm_head"]}, {"bias": "lora_only"}])
def test_adapters_with_more_than_updates_are_merged(options, tmp_path, cache):
    base = tiny.checkpoint(tmp_path / "base", "llama-untied", dtype=torch.float32)
    tuned = adapter(base, tmp_path / "adapter", **options)
    table, _ = drift(base, tuned, FACTS)
    assert len(merges(cache)) == 1
    assert table["kl_tuned_base"].min() > 0


def test_measured_against_another_base_the_adapter_is_merged_onto_its_own(tmp_path, cache):
    base = tiny.checkpoint(tmp_path / "base", dtype=torch.float32)
    tuned = adapter(base, tmp_path / "adapter")
    other = tiny.nudge(base, tmp_path / "other")
    table, _ = drift(other, tuned, FACTS)
    expected, _ = drift(other, merged(tuned), FACTS)
    assert table["kl_tuned_base"].to_list() == expected["kl_tuned_base"].to_list()


def test_an_adapter_that_does_not_fit_is_named(tmp_path, cache):
    base = tiny.checkpoint(tmp_path / "base", dtype=torch.float32)
    tuned = adapter(base, tmp_path / "adapter")
    (tuned / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"adapter: no adapter_model\.safetensors beside"):
        drift(base, tuned, FACTS)
    wider = tiny.checkpoint(tmp_path / "wider", dtype=torch.float32, hidden=64)
    foreign = adapter(wider, tmp_path / "foreign")
    config = json.loads((foreign / "adapter_config.json").read_text())
    (foreign / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    with pytest.raises(InputError, match="foreign: the adapter does not fit its base"):
        drift(base, foreign, FACTS)


def test_the_command_takes_the_adapter_as_it_is(tmp_path, cache):
    base = tiny.checkpoint(tmp_path / "base", dtype=torch.float32)
    tuned = adapter(base, tmp_path / "adapter")
    write_jsonl(tmp_path / "facts.jsonl", (fact.to_json() for fact in FACTS))
    out = tmp_path / "out"
    assert main(["drift", str(base), str(tuned), "--facts", str(tmp_path / "facts.jsonl"), "--out", str(out)]) == 0
    assert not merges(cache)
    models = json.loads((out / "run.json").read_text())["models"]
    assert models["tuned"].startswith("sha256:") and models["tuned"] != models["base"]
