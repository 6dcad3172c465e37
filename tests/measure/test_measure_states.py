"""Models whose weights are elsewhere, or whose blocks are compiled: the same states and logits as ever."""

import shutil

import polars as pl
import pytest
import torch
from accelerate import cpu_offload
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

import tiny
from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.measure import compare
from knowshift.measure.passages import Passage
from knowshift.measure.states import entry_device, final_states, take_head
from knowshift.measure.token_drift import drift
from knowshift.models import load_model

FACTS = [Fact(str(index), f"Where is {'abc ' * index}?", ("Lima, a city",)) for index in range(4)]
PASSAGES = [Passage(tuple(range(3, 3 + length)), kept=length) for length in (9, 4, 1)]


def parts(architecture):
    """The modules of a tiny model that accelerate may put somewhere, in order."""
    if architecture == "gpt2":
        return [
            "transformer.wte",
            "transformer.wpe",
            "transformer.h.0",
            "transformer.h.1",
            "transformer.ln_f",
            "lm_head",
        ]
    return ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head"]


@pytest.mark.parametrize("architecture", ["llama", "llama-untied", "gpt2", "qwen2", "gemma3"])
@pytest.mark.parametrize("on_disk", ["block", "body", "all"])
def test_weights_on_disk_change_nothing(architecture, on_disk, tmp_path):
    """accelerate's own hooks: weights come from the checkpoint's file for a module's forward pass and go again."""
    folder = tiny.checkpoint(tmp_path / "model", architecture, dtype=torch.float32)
    plain = load_model(folder)
    names = parts(architecture)
    elsewhere = {"block": names[2:3], "body": names[1:-1], "all": names}[on_disk]
    placed = load_model(folder, device_map={name: "disk" if name in elsewhere else "cpu" for name in names})
    assert any(parameter.device.type == "meta" for parameter in placed.parameters())
    expected = final_states(plain, PASSAGES, tmp_path / "plain", batch_tokens=20, label="plain")
    found = final_states(placed, PASSAGES, tmp_path / "placed", batch_tokens=20, label="placed")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(take_head(placed)(found), take_head(plain)(expected))


@pytest.mark.parametrize("architecture", ["llama", "llama-untied", "gpt2"])
def test_weights_that_wait_in_memory_are_freed_with_the_body(architecture, tmp_path):
    """As where a GPU is too small: weights wait in the CPU's memory and are brought over for each forward pass."""
    folder = tiny.checkpoint(tmp_path / "model", architecture, dtype=torch.float32)
    plain, placed = load_model(folder), load_model(folder)
    cpu_offload(placed, execution_device=torch.device("cpu"))
    assert placed.device.type == "meta" and entry_device(placed).type == "cpu"
    waiting = placed.get_output_embeddings()._hf_hook.weights_map.dataset
    expected = final_states(plain, PASSAGES, tmp_path / "plain", batch_tokens=20, label="plain")
    found = final_states(placed, PASSAGES, tmp_path / "placed", batch_tokens=20, label="placed")
    head = take_head(placed)
    assert list(waiting) == ["lm_head.weight"]
    torch.testing.assert_close(head(found), take_head(plain)(expected))


def test_a_model_larger_than_its_device_is_spread(tmp_path, monkeypatch):
    base = tiny.checkpoint(tmp_path / "base", "llama-untied", dtype=torch.float32)
    tuned = tiny.nudge(base, tmp_path / "tuned", scale=0.05)
    expected, _ = drift(base, tuned, FACTS)
    places = {name: "disk" if "layers" in name else "cpu" for name in parts("llama-untied")}
    monkeypatch.setattr(compare, "spread", lambda path, dtype: places)
    table, _ = drift(base, tuned, FACTS)
    assert table["kl_tuned_base"].to_list() == pytest.approx(expected["kl_tuned_base"].to_list(), rel=1e-6)


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@needs_compiler
def test_compiled_blocks_really_run_and_say_the_same(tmp_path):
    base = tiny.checkpoint(tmp_path / "base", dtype=torch.float32, layers=1)
    tuned = tiny.nudge(base, tmp_path / "tuned", scale=0.05)
    write_jsonl(tmp_path / "facts.jsonl", (fact.to_json() for fact in FACTS))
    expected, _ = drift(base, tuned, FACTS)
    torch._dynamo.reset()
    counters.clear()
    command = ["drift", base, tuned, "--facts", tmp_path / "facts.jsonl", "--out", tmp_path / "out"]
    assert main([*map(str, command), "--compile"]) == 0
    assert counters["stats"]["unique_graphs"] >= 1
    assert counters["inductor"] or counters["aot_autograd"]["ok"]
    found = pl.read_parquet(tmp_path / "out" / "drift.parquet")
    assert found["kl_tuned_base"].to_list() == pytest.approx(expected["kl_tuned_base"].to_list(), rel=1e-4)
    counters.clear()
    drift(base, tuned, FACTS)
    assert not counters["stats"]


def test_without_a_compiler_compile_is_one_clear_line(tmp_path, monkeypatch, capsys):
    base = tiny.checkpoint(tmp_path / "base", dtype=torch.float32, layers=1)
    write_jsonl(tmp_path / "facts.jsonl", (fact.to_json() for fact in FACTS))
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    command = ["drift", base, base, "--facts", tmp_path / "facts.jsonl", "--out", tmp_path / "out", "--compile"]
    capsys.readouterr()
    assert main([str(word) for word in command]) == 2
    error = capsys.readouterr().err
    assert error.startswith("knowshift: error: --compile: torch cannot compile this model here: ")
    assert error.count("\n") == 1


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(InputError, match="are needed here for hidden states; set TMPDIR"):
        final_states(tiny.model(), PASSAGES, tmp_path / "states", batch_tokens=20, label="model")


TOGETHER = [Passage((5, 6, 7, *range(8, 8 + more)), kept=3 + more) for more in range(6)]


@pytest.mark.parametrize("kind", sorted(tiny.ZOO.keys() - {"llama4_text"}))
def test_every_architecture_is_read_packed_or_as_it_was(kind, tmp_path):
    """Whether attention can be laid out anew is told by the model itself: two passages are tried."""
    model = tiny.specimen(kind).float()
    found = final_states(model, TOGETHER, tmp_path / "states", batch_tokens=64, label="model")
    with torch.inference_mode():
        alone = [model.base_model(input_ids=torch.tensor([p.ids]), use_cache=False).last_hidden_state for p in TOGETHER]
    torch.testing.assert_close(found, torch.cat(alone, dim=1)[0], rtol=1e-3, atol=1e-4)


def test_packed_passages_cost_each_token_once(tmp_path):
    model, seen = tiny.model(), []
    model.base_model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"].numel()), with_kwargs=True
    )
    final_states(model, TOGETHER, tmp_path / "states", batch_tokens=64, label="model")
    assert seen[-1] == len(TOGETHER[-1].ids) and len(seen) == 3  # two to try it on, both ways, then all there is


def test_a_model_that_packed_would_say_something_else_is_not_packed(tmp_path):
    """It looks at the token before, which in a packed row may be another text's."""
    model, states = tiny.model(), []
    block = model.base_model.layers[0]
    block.register_forward_hook(
        lambda _, __, out: out + out.roll(1, dims=1) * (torch.arange(out.shape[1]) > 0)[:, None]
    )
    passages = [*TOGETHER, Passage((5, 6, 40, 41), kept=4)]
    for part in ([passage] for passage in passages):
        states.append(final_states(model, part, tmp_path / str(len(states)), batch_tokens=64, label="model"))
    found = final_states(model, passages, tmp_path / "all", batch_tokens=64, label="model")
    torch.testing.assert_close(found, torch.cat(states), rtol=1e-4, atol=1e-5)


def test_a_model_that_hides_its_states_is_refused(tmp_path):
    with pytest.raises(InputError, match="Llama4ForCausalLM: this architecture has no final hidden states"):
        final_states(tiny.specimen("llama4_text"), TOGETHER, tmp_path / "states", batch_tokens=64, label="model")
