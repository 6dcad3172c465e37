"""The examples, run as their readers run them, on a tiny model that knows facts."""

import importlib.util
import json
from pathlib import Path

import pytest
import small
from peft import LoraConfig, PeftModel, get_peft_model

from knowshift.models import load_model

ROOT = Path(__file__).parents[2]
OUTCOMES = {"repaired", "nothing-lost", "nothing-returned", "task-drop"}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A base that knows facts, and the folder of facts and task."""
    folder = tmp_path_factory.mktemp("examples")
    base, _ = small.base(folder / "base", steps=250)
    small.write(folder / "data")
    (folder / "data/task.jsonl").rename(folder / "data/train.jsonl")
    return base, folder / "data"


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_after_a_trl_run(known, tmp_path):
    base, data = known
    # What a tiny model learns by heart it does not do on other prompts, so it is asked what it learned.
    (data / "task.jsonl").write_text((data / "train.jsonl").read_text())
    arguments = [str(base), "--data", str(data), "--knowledge", str(data / "facts.jsonl"), "--budget", "0.2"]
    told = example("repair_trl").main([*arguments, "--steps", "120", "--learning-rate", "5e-3"])
    assert told["outcome"] in OUTCOMES and told["facts"] >= 10
    assert told == json.loads((tmp_path / "repaired/metrics.json").read_text())
    assert told["sentence"] in (tmp_path / "repaired/report.html").read_text()
    assert (tmp_path / "repaired/model/model.safetensors").is_file() == (told["outcome"] == "repaired")


def test_with_an_adapter(known, tmp_path):
    base, data = known
    config = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear")
    wrapped = get_peft_model(load_model(base, dtype="float32"), config)
    small.train(wrapped, small.Texts(small.load_tokenizer(base), 3), 120, facts=False, items=True)
    wrapped.save_pretrained(tmp_path / "lora")
    arguments = [str(tmp_path / "lora"), "--task", str(data / "train.jsonl"), "--knowledge", str(data / "facts.jsonl")]
    # The end token's embedding, which LoRA leaves alone, was never learned: the model goes on talking.
    told, model = example("repair_lora").main([*arguments, "--task-metric", "log-likelihood", "--budget", "0.2"])
    assert told["outcome"] in OUTCOMES
    assert isinstance(model, PeftModel) == (told["adapter"] is not None or told["model"] is None)
    if told["adapter"]:
        assert (tmp_path / "repaired/adapter/adapter_model.safetensors").is_file()
