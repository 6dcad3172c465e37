"""What the engine stops at, refuses and tells; whether its draws are right is looked at in ``test_sampler_*``."""

import itertools

import numpy as np
import pytest
import torch

import tiny
from knowshift.errors import InputError
from knowshift.generate.draw import draw, draw_torch
from knowshift.generate.engine import Prompt
from knowshift.generate.transformers_engine import TransformersEngine

TEXTS = [
    "The capital of France is",
    "The river",
    "Question: what is the capital of Peru? Answer:",
    "Nobody knows",
    "a",
    "The capital of Japan is",
]


@pytest.fixture(scope="module", params=tiny.ARCHITECTURES)
def engine(request: pytest.FixtureRequest) -> TransformersEngine:
    return TransformersEngine(tiny.model(request.param, hidden=32), tiny.tokenizer())


def test_stop_ends_a_draw_at_its_first_match(engine: TransformersEngine) -> None:
    prompts = [Prompt(text, str(index)) for index, text in enumerate(TEXTS)]
    options = {"samples": 10, "temperature": 1.5, "max_new_tokens": 10, "seed": 0}
    free = engine.sample(prompts, **options)
    stopped = engine.sample(prompts, stop=lambda index, text: "e" in text, **options)
    for before, after in zip(itertools.chain(*free), itertools.chain(*stopped), strict=True):
        assert ("e" in after.text) == ("e" in before.text)
        assert before.text.startswith(after.text.rstrip("\ufffd"))
        assert after.finish == "stop" if "e" in after.text else after == before
        assert "e" not in after.text[:-6]


def test_inverse_cdf_equals_the_plain_running_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 1000, generator=generator) * 4
    owners = [row for row in range(5) for _ in range(400)]
    drawn = torch.rand(2000, generator=generator, dtype=torch.float64).numpy()
    plain = torch.softmax(logits / 0.7, -1).double().cumsum(-1)
    target = torch.from_numpy(drawn) * plain[owners, -1]
    slow = torch.searchsorted(plain[owners], target[:, None], right=True)[:, 0].tolist()
    assert draw(logits, 0.7, np.array(owners), drawn).tolist() == slow
    assert draw_torch(logits, 0.7, np.array(owners), drawn).tolist() == slow


def test_refuses_what_it_cannot_do(engine: TransformersEngine) -> None:
    with pytest.raises(InputError, match="temperature"):
        engine.sample([Prompt("a", "k")], samples=1, temperature=0.0, max_new_tokens=4, seed=0)
    with pytest.raises(InputError, match="context"):
        engine.greedy(["word " * 400], max_new_tokens=4)
    with pytest.raises(InputError, match="no token"):
        engine.greedy([""], max_new_tokens=4)


def test_damaged_weights_are_named() -> None:
    model = tiny.model("llama")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        TransformersEngine(model, tiny.tokenizer()).greedy(["a"], max_new_tokens=2)


def test_progress_is_told_prompt_by_prompt(engine: TransformersEngine) -> None:
    told: list[int] = []
    TransformersEngine(engine.model, engine.tokenizer, rows=2).greedy(TEXTS, max_new_tokens=2, advance=told.append)
    assert told == [2, 2, 2]
    prompts = [Prompt(text, str(index)) for index, text in enumerate(TEXTS)]
    engine.sample(prompts, samples=2, temperature=1.0, max_new_tokens=2, seed=0, advance=told.append)
    assert sum(told) == 2 * len(TEXTS)
