"""Greedy continuation is that of ``generate(do_sample=False)``, token for token, on every architecture.

Prompts and continuations are longer than the sliding windows of the tiny Gemma and Mistral, and the blocks are
scaled so that models do not just repeat their last token: then a wrong mask, position or cache shows.
"""

import pytest
import torch
from sampling import enliven

import tiny
from knowshift.generate.engine import Completion, Prompt
from knowshift.generate.transformers_engine import TransformersEngine

NEW = 24
WINDOW = 16
TEXTS = [
    "a",
    "The river",
    "Nobody knows",
    "The river runs to the sea",
    "The capital of France is",
    "The capital of Japan is",
    "The capital of Peru is",
    "Question: what is the capital of Peru? Answer:",
    "Question: what is the capital of Chad? Answer:",
    "The capital of France is Paris. The capital of Japan is Tokyo. The river runs to",
    "Who wrote the book? Nobody knows 0123456789 abc xyz, and nobody ever will know it:",
    "éß 東京 \N{GRINNING FACE}",
]
BUILDS = [*((name, 2) for name in (*tiny.ARCHITECTURES, *tiny.FURTHER)), ("gemma3", 6)]  # six: one layer is global


def build(architecture: str, layers: int) -> TransformersEngine:
    model = tiny.model(architecture, layers=layers)
    enliven(model, 8.0)
    tokenizer = tiny.tokenizer()
    # A second end token, as many checkpoints have: one that this model does say.
    said = plain(model, tokenizer, TEXTS[4])
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, next(t for t in said[8:] if t not in said[:8])]
    return TransformersEngine(model, tokenizer, rows=5)


def plain(model: torch.nn.Module, tokenizer: object, text: str) -> list[int]:
    """Tokens that plain transformers adds to one text, read alone."""
    ids = tokenizer(text, return_tensors="pt").input_ids
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False)
    return whole[0, ids.shape[1] :].tolist()


@pytest.fixture(scope="module", params=BUILDS, ids=lambda build: f"{build[0]}-{build[1]}")
def engine(request: pytest.FixtureRequest) -> TransformersEngine:
    return build(*request.param)


@pytest.fixture(scope="module")
def expected(engine: TransformersEngine) -> list[Completion]:
    ends = engine.model.generation_config.eos_token_id
    found = []
    for text in TEXTS:
        tokens = plain(engine.model, engine.tokenizer, text)
        finish = "eos" if tokens[-1] in ends else "length"
        said = engine.tokenizer.decode(tokens, skip_special_tokens=True)
        found.append(Completion(said, len(tokens), finish))
    return found


def test_equals_generate(engine: TransformersEngine, expected: list[Completion]) -> None:
    assert engine.greedy(TEXTS, max_new_tokens=NEW) == expected
    assert len({completion.text for completion in expected}) > len(TEXTS) // 2


def test_rides_along_with_the_draws(engine: TransformersEngine, expected: list[Completion]) -> None:
    prompts = [Prompt(text, str(index)) for index, text in enumerate(TEXTS)]
    options = {"samples": 3, "temperature": 0.3, "max_new_tokens": NEW, "seed": 0}
    both = engine.sample(prompts, greedy=True, **options)
    assert [draws[-1] for draws in both] == expected
    assert [draws[:-1] for draws in both] == engine.sample(prompts, **options)


def test_is_the_limit_of_low_temperatures(engine: TransformersEngine, expected: list[Completion]) -> None:
    prompts = [Prompt(text, str(index)) for index, text in enumerate(TEXTS)]
    cold = engine.sample(prompts, samples=2, temperature=1e-6, max_new_tokens=NEW, seed=0)
    assert cold == [[completion] * 2 for completion in expected]


def test_the_tokens_ends_are_all_heeded(engine: TransformersEngine, expected: list[Completion]) -> None:
    assert expected[4].finish == "eos" and expected[4].tokens < NEW


@pytest.mark.parametrize("architecture", ["gemma3", "mistral"])
def test_the_window_matters_here(architecture: str) -> None:
    """Without its window a model says something else, so the tests above do look at windows."""
    windowed, whole = build(architecture, 2), build(architecture, 2)
    whole.model.config.sliding_window = 10_000
    for layer in whole.model.model.layers:
        if hasattr(layer.self_attn, "sliding_window"):
            layer.self_attn.sliding_window = 10_000
    assert windowed.model.config.sliding_window == WINDOW
    lengths = [len(ids) for ids in windowed.tokenizer(TEXTS).input_ids]
    assert min(lengths) < WINDOW < max(lengths)
    said = [[plain(side.model, side.tokenizer, text) for text in TEXTS] for side in (windowed, whole)]
    assert sum(a != b for a, b in zip(*said, strict=True)) >= 4
