"""The prefix-sharing sampler against plain transformers, enumeration, and itself in other batches."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

import tiny
from knowshift.errors import InputError
from knowshift.generate.engine import Prompt
from knowshift.generate.transformers_engine import TransformersEngine, _inverse_cdf

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


def test_greedy_equals_generate(engine: TransformersEngine) -> None:
    for text, ours in zip(TEXTS, engine.greedy(TEXTS, max_new_tokens=20), strict=True):
        inputs = engine.tokenizer(text, return_tensors="pt")
        whole = engine.model.generate(**inputs, max_new_tokens=20, do_sample=False)
        tokens = whole[0, inputs.input_ids.shape[1] :]
        assert ours.text == engine.tokenizer.decode(tokens, skip_special_tokens=True)
        assert ours.tokens == len(tokens)
        assert (ours.finish == "eos") == (tokens[-1].item() == engine.tokenizer.eos_token_id)


def test_draws_do_not_depend_on_the_batch(engine: TransformersEngine) -> None:
    prompts = [Prompt(text, key=str(index)) for index, text in enumerate(TEXTS * 5)]
    options = {"samples": 6, "temperature": 0.9, "max_new_tokens": 8, "seed": 3}
    together = engine.sample(prompts, **options)
    alone = [engine.sample([prompt], **options)[0] for prompt in prompts]
    pairs = [(a, b) for x, y in zip(together, alone, strict=True) for a, b in zip(x, y, strict=True)]
    same = sum(a == b for a, b in pairs)
    assert same >= 0.99 * len(pairs)  # the rest is rounding of a batched matrix product


def test_seed_and_key_decide_the_draws(engine: TransformersEngine) -> None:
    options = {"samples": 8, "temperature": 1.0, "max_new_tokens": 6}
    ask = lambda seed, key: engine.sample([Prompt(TEXTS[0], key)], seed=seed, **options)[0]  # noqa: E731
    assert ask(0, "a") == ask(0, "a")
    assert ask(0, "a") != ask(1, "a")
    assert ask(0, "a") != ask(0, "b")


def test_more_samples_keep_the_first_ones(engine: TransformersEngine) -> None:
    options = {"temperature": 1.0, "max_new_tokens": 6, "seed": 0}
    few = engine.sample([Prompt(TEXTS[0], "k")], samples=3, **options)[0]
    many = engine.sample([Prompt(TEXTS[0], "k")], samples=9, **options)[0]
    assert many[:3] == few


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


@pytest.mark.parametrize("temperature", [0.5, 0.7, 1.3])
def test_whole_sequences_follow_the_model(temperature: float) -> None:
    """Chi-square over all three-token sequences against exact enumeration."""
    model = tiny.model("llama", vocabulary=400, hidden=16)
    engine = TransformersEngine(model, tiny.tokenizer())
    with torch.no_grad():  # a sharp model: few sequences carry most of the weight
        for parameter in model.parameters():
            parameter.mul_(6.0)
    draws = 10_000
    sampled = Counter(
        draw.text
        for draw in engine.sample(
            [Prompt("The capital", "k")], samples=draws, temperature=temperature, max_new_tokens=2, seed=1
        )[0]
    )
    expected = enumerate_texts(engine, "The capital", temperature)
    large = {text: weight * draws for text, weight in expected.items() if weight * draws >= 8}
    observed = [sampled[text] for text in large] + [draws - sum(sampled[text] for text in large)]
    weights = [*large.values(), draws - sum(large.values())]
    assert len(large) > 10
    assert stats.chisquare(observed, np.array(weights) * sum(observed) / sum(weights)).pvalue > 1e-3


def enumerate_texts(engine: TransformersEngine, text: str, temperature: float) -> dict[str, float]:
    """Probability of every text of at most two tokens, from full forward passes in double precision."""
    model = engine.model.double()
    ids = engine.tokenizer(text, return_tensors="pt").input_ids
    end = engine.tokenizer.eos_token_id
    with torch.no_grad():
        first = torch.softmax(model(ids).logits[0, -1] / temperature, -1)
        extended = torch.cat([ids.expand(400, -1), torch.arange(400)[:, None]], 1)
        second = torch.softmax(model(extended).logits[:, -1] / temperature, -1)
    model.float()
    weights: Counter[str] = Counter()
    for a in range(400):
        if a == end:
            weights[""] += first[a].item()
            continue
        for b in range(400):
            weight = (first[a] * second[a, b]).item()
            if weight > 1e-7:
                weights[engine.tokenizer.decode([a, b], skip_special_tokens=True)] += weight
    return weights


def test_inverse_cdf_equals_the_plain_running_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 1000, generator=generator) * 4
    owners = [row for row in range(5) for _ in range(400)]
    drawn = torch.rand(2000, generator=generator, dtype=torch.float64).numpy()
    plain = torch.softmax(logits / 0.7, -1).double().cumsum(-1)
    target = torch.from_numpy(drawn) * plain[owners, -1]
    slow = torch.searchsorted(plain[owners], target[:, None], right=True)[:, 0].tolist()
    assert _inverse_cdf(logits, 0.7, owners, drawn) == slow


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
    engine.greedy(TEXTS, max_new_tokens=2, advance=told.append)
    assert sum(told) == len(TEXTS)
    assert len(told) > 1  # texts of different length are read apart
    prompts = [Prompt(text, str(index)) for index, text in enumerate(TEXTS)]
    engine.sample(prompts, samples=2, temperature=1.0, max_new_tokens=2, seed=0, advance=told.append)
    assert sum(told) == 2 * len(TEXTS)
