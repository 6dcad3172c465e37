"""Whole continuations follow the model's own distribution, draw by draw independently; samplers that err are caught."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sampling import (
    EveryOtherAgain,
    GoesOnAtTheEnd,
    LastTokenByArgmax,
    NoTemperature,
    Nucleus,
    OneKeyForAll,
    OneNumberForAll,
    Sorted,
    WarmerByATenth,
    Wrong,
    by_generate,
    enliven,
    enumerate_outcomes,
    fit,
    independent,
    outcome,
    same_law,
    toy,
)
from scipy import stats

import tiny
from knowshift.facts.fact import Fact
from knowshift.facts.matching import Matcher
from knowshift.facts.templates import templates_for
from knowshift.generate.engine import Completion, Prompt
from knowshift.generate.transformers_engine import TransformersEngine

TEXT = "a b c"
TEMPERATURES = (0.3, 0.7, 1.0, 1.5)
DRAWS = 10_000
LEVEL = 1e-4  # seeds are fixed, so a test passes always or never
CAUGHT = 1e-8  # what a wrong sampler falls below


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def engine(request: pytest.FixtureRequest) -> TransformersEngine:
    return toy(request.param)


@pytest.fixture(scope="module")
def llama() -> TransformersEngine:
    return toy("llama")


def draws_of_one(sampler: TransformersEngine | Wrong, temperature: float, **options: object) -> list[Completion]:
    """All draws for one prompt in one call."""
    options = {"max_new_tokens": 4, "seed": 0} | options
    return sampler.sample([Prompt(TEXT, "k")], samples=DRAWS, temperature=temperature, **options)[0]


def draws_of_many(sampler: TransformersEngine | Wrong, temperature: float, samples: int = 10) -> list[list[Completion]]:
    """As many draws for a thousand prompts of the same text and different keys."""
    prompts = [Prompt(TEXT, f"fact {index}") for index in range(DRAWS // samples)]
    return sampler.sample(prompts, samples=samples, temperature=temperature, max_new_tokens=4, seed=0)


def flat(draws: Sequence[Sequence[Completion]]) -> list[Completion]:
    return [draw for one in draws for draw in one]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_whole_continuations_follow_the_model(engine: TransformersEngine, temperature: float) -> None:
    expected = enumerate_outcomes(engine, TEXT, temperature=temperature, length=4)
    ended = sum(chance for (_, finish), chance in expected.items() if finish == "eos")
    assert 0.1 < ended < 0.9
    assert fit(map(outcome, draws_of_one(engine, temperature)), expected) > LEVEL
    assert fit(map(outcome, flat(draws_of_many(engine, temperature))), expected) > LEVEL


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_draws_that_a_stop_test_ends_follow_the_model(engine: TransformersEngine, temperature: float) -> None:
    def stops(text: str) -> bool:
        return len(text) > 1 and text.endswith(("b", "d"))

    expected = enumerate_outcomes(engine, TEXT, temperature=temperature, length=4, stop=stops)
    assert sum(chance for (_, finish), chance in expected.items() if finish == "stop") > 0.1
    draws = draws_of_one(engine, temperature, stop=lambda _, text: stops(text))
    assert fit(map(outcome, draws), expected) > LEVEL


@pytest.mark.parametrize("wrong", [NoTemperature, WarmerByATenth, LastTokenByArgmax, GoesOnAtTheEnd, Nucleus])
def test_a_wrong_law_is_caught(llama: TransformersEngine, wrong: type[Wrong]) -> None:
    expected = enumerate_outcomes(llama, TEXT, temperature=0.7, length=4)
    assert fit(map(outcome, draws_of_one(wrong(llama), 0.7)), expected) < CAUGHT


def beside(draws: list[list[Completion]], step: int = 1) -> float:
    """Independence of draws that follow each other within a prompt."""
    pairs = [(outcome(one[j]), outcome(one[j + step])) for one in draws for j in range(0, len(one) - step, 2)]
    return independent(*zip(*pairs, strict=True))


def between(draws: list[list[Completion]]) -> float:
    """Independence of the draws of one number for prompts that follow each other."""
    pairs = [
        (outcome(a), outcome(b))
        for x, y in zip(draws[::2], draws[1::2], strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    return independent(*zip(*pairs, strict=True))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_draws_are_independent_of_each_other(engine: TransformersEngine, temperature: float) -> None:
    draws = draws_of_many(engine, temperature)
    assert beside(draws) > LEVEL
    assert beside(draws, step=5) > LEVEL
    assert between(draws) > LEVEL
    assert beside([draws_of_one(engine, temperature)]) > LEVEL


def test_runs_with_other_seeds_are_independent(engine: TransformersEngine) -> None:
    one, two = (draws_of_one(engine, 0.7, seed=seed) for seed in (0, 1))
    assert independent([outcome(draw) for draw in one], [outcome(draw) for draw in two]) > LEVEL


@pytest.mark.parametrize("wrong", [OneNumberForAll, EveryOtherAgain, Sorted])
def test_dependent_draws_are_caught(llama: TransformersEngine, wrong: type[Wrong]) -> None:
    assert beside(draws_of_many(wrong(llama), 0.7)) < CAUGHT


def test_prompts_that_share_their_numbers_are_caught(llama: TransformersEngine) -> None:
    draws = draws_of_many(OneKeyForAll(llama), 0.7)
    assert beside(draws_of_many(llama, 0.7)) > LEVEL
    assert between(draws) < CAUGHT


@pytest.mark.parametrize("temperature", [0.5, 0.7, 1.3])
def test_the_same_law_as_plain_generate(engine: TransformersEngine, temperature: float) -> None:
    plain = by_generate(engine, TEXT, DRAWS, temperature, 4, seed=0)
    assert same_law(map(outcome, plain), map(outcome, draws_of_one(engine, temperature))) > LEVEL


@pytest.mark.parametrize("wrong", [NoTemperature, WarmerByATenth, LastTokenByArgmax, Nucleus])
def test_a_law_other_than_generates_is_caught(llama: TransformersEngine, wrong: type[Wrong]) -> None:
    plain = by_generate(llama, TEXT, DRAWS, 0.7, 4, seed=0)
    assert same_law(map(outcome, plain), map(outcome, draws_of_one(wrong(llama), 0.7))) < 1e-6


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2", "gemma3"])
def test_the_same_law_as_plain_generate_over_many_tokens(architecture: str) -> None:
    """400 tokens and longer texts: only the common ones are counted one by one."""
    engine, spread = tiny_engine(architecture)
    text, temperature = "The capital of France is", spread / 4
    plain = by_generate(engine, text, DRAWS, temperature, 5, seed=0)
    ours = engine.sample([Prompt(text, "k")], samples=DRAWS, temperature=temperature, max_new_tokens=5, seed=0)[0]
    common = Counter(map(outcome, plain)).most_common()
    assert common[0][1] < 0.5 * DRAWS and common[20][1] > 20
    assert same_law(map(outcome, plain), map(outcome, ours)) > LEVEL


def test_hits_of_each_template_agree_with_plain_generate() -> None:
    engine, spread = tiny_engine("mistral")
    ours, plain = hits_by_template(engine, 500, spread / 2)
    assert 0.05 < np.mean(plain) / 500 < 0.8
    assert homogeneous(ours, plain, 500) > LEVEL
    assert homogeneous(*hits_by_template(NoTemperature(engine), 500, spread / 2), 500) < CAUGHT


def tiny_engine(architecture: str) -> tuple[TransformersEngine, float]:
    """An engine on a tiny model, and the spread of its logits: as temperature it leaves them about one apart."""
    model = tiny.model(architecture)
    enliven(model, 6.0)
    tokenizer = tiny.tokenizer()
    with torch.no_grad():
        logits = model(tokenizer("The capital of France is", return_tensors="pt").input_ids).logits
    return TransformersEngine(model, tokenizer), float(logits[0, -1].std())


def hits_by_template(
    sampler: TransformersEngine | Wrong, samples: int, temperature: float
) -> tuple[list[int], list[int]]:
    """Hits of one fact for each template: ours, ended at their hits as in scoring, and those of plain ``generate``."""
    fact = Fact(id="x", question="what is the capital of Peru?", answers=("e",))
    matcher = Matcher(fact.answers)
    texts = templates_for(fact)
    ours = sampler.sample(
        [Prompt(text, f"x {index}") for index, text in enumerate(texts)],
        samples=samples,
        temperature=temperature,
        max_new_tokens=4,
        seed=0,
        stop=lambda _, text: matcher.settled(text),
    )
    plain = [by_generate(sampler, text, samples, temperature, 4, seed=index) for index, text in enumerate(texts)]
    left, right = ([sum(matcher.contains(draw.text) for draw in draws) for draws in side] for side in (ours, plain))
    return left, right


def homogeneous(left: Sequence[int], right: Sequence[int], samples: int) -> float:
    """p-value that the hits of every template are binomial with the same chance on both sides."""
    statistic, freedom = 0.0, 0
    for a, b in zip(left, right, strict=True):
        share = (a + b) / (2 * samples)
        if 10 <= a + b <= 2 * samples - 10:
            statistic += (a - b) ** 2 / (2 * samples * share * (1 - share))
            freedom += 1
    assert freedom >= 15
    return float(stats.chi2.sf(statistic, freedom))
