"""What is decoded together follows the free memory and the prompt's length, and nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

import tiny
from knowshift.generate import fit
from knowshift.generate.engine import Prompt
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.memory import free_memory


def one_token(model) -> tuple[DynamicCache, torch.Tensor]:
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        return cache, model(input_ids=torch.zeros(1, 1, dtype=torch.long), past_key_values=cache).logits[:, -1]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_rows_halve_until_they_fit(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model(architecture)
    config = model.config.get_text_config()
    cache, logits = one_token(model)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    states = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize * fit.POSITIONS
    row = states + logits.shape[-1] * fit.LOGIT_BYTES
    for free, expected in ((1 << 40, 384), (2 * 384 * row, 384), (2 * 384 * row - 2, 192), (2 * 100 * row, 96), (0, 1)):
        monkeypatch.setattr(fit, "free_memory", lambda device, free=free: free)
        assert fit.fit_rows(cache, logits) == expected
    engine = TransformersEngine(model, tiny.tokenizer())
    assert engine.rows == 1


@given(rows=st.integers(1, 4096), positions=st.integers(1, 100_000))
def test_longer_prompts_take_no_more_memory(rows: int, positions: int) -> None:
    fewer = fit.shorter(rows, positions)
    assert 1 <= fewer <= rows
    assert fewer == 1 or fewer * positions <= 1.01 * rows * fit.POSITIONS + fewer
    assert positions > fit.POSITIONS or fewer == rows


def test_long_prompts_are_decoded_fewer_at_a_time() -> None:
    engine = TransformersEngine(tiny.model("llama"), tiny.tokenizer(), rows=40)
    batches = []
    decode = engine._decode_batch

    def watched(members, encoded, *rest):
        batches.append([len(encoded[index]) for index in members])
        return decode(members, encoded, *rest)

    engine._decode_batch = watched
    prompts = [Prompt("word " * count, f"{count} {copy}") for count in (3, 45) for copy in range(8)]
    draws = engine.sample(prompts, samples=10, temperature=1.0, max_new_tokens=4, seed=0)
    assert [len(own) for own in draws] == [10] * len(prompts)
    assert [len(batch) for batch in batches if max(batch) < 100] == [4, 4]
    assert {len(batch) for batch in batches if max(batch) > 160} <= {1, 2}


def test_free_memory_is_what_the_system_says() -> None:
    assert 0 < free_memory() == pytest.approx(free_memory(torch.device("cpu")), rel=0.2)
