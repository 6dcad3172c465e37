"""The vLLM engine, on vLLM itself where it is installed: same texts, same ends, same distribution, streams that go on.

Skipped without vLLM (benchmarks/vllm-cpu.md makes an environment that has it), but for what is said then.
"""

import gc
import importlib.util
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import tiny
from knowshift.errors import InputError
from knowshift.generate.engine import Completion, Prompt
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.generate.vllm_engine import VllmEngine, end_tokens
from knowshift.models import load_model, load_tokenizer

INSTALLED = importlib.util.find_spec("vllm") is not None
needs_vllm = pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed: see benchmarks/vllm-cpu.md")

TEXTS = ["The capital of France is", "The river", "Question: what is the capital of Peru? Answer:", "Nobody knows", "a"]
PROMPTS = [Prompt(text, key=str(index)) for index, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama whose own sampling defaults, if they were applied, would leave one token to draw."""
    path = tiny.checkpoint(tmp_path_factory.mktemp("vllm") / "model", dtype=torch.float32, hidden=128, seed=4)
    (path / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [0, 7], "do_sample": True, "top_k": 1, "temperature": 0.1, "top_p": 0.2})
    )
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[VllmEngine]:
    made = VllmEngine(folder, load_tokenizer(folder), dtype="float32", enforce_eager=True, max_num_seqs=64)
    yield made
    del made
    gc.collect()


@pytest.fixture(scope="module")
def twin(folder: Path) -> TransformersEngine:
    return TransformersEngine(load_model(folder, dtype="float32"), load_tokenizer(folder))


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_what_is_missing_is_said(base_folder: Path) -> None:
    with pytest.raises(InputError, match=r"vllm is needed here and is not installed: pip install 'knowshift\[vllm\]'"):
        VllmEngine(base_folder, load_tokenizer(base_folder))


def test_end_tokens_are_those_transformers_reads(folder: Path, base_folder: Path) -> None:
    assert end_tokens(folder, load_tokenizer(folder)) == {0, 7}
    (base_folder / "generation_config.json").rename(base_folder / "aside.json")
    try:
        assert end_tokens(base_folder, load_tokenizer(base_folder)) == {0}
    finally:
        (base_folder / "aside.json").rename(base_folder / "generation_config.json")


@needs_vllm
def test_greedy_equals_the_other_engine(engine: VllmEngine, twin: TransformersEngine) -> None:
    assert engine.greedy(TEXTS, max_new_tokens=20) == twin.greedy(TEXTS, max_new_tokens=20)


@needs_vllm
def test_scores_what_is_given(engine: VllmEngine, twin: TransformersEngine) -> None:
    given = [[5, 9, 30], [40], [8, 8], [100, 3], [7]]
    ours, theirs = (made.answer(PROMPTS, given, max_new_tokens=6) for made in (engine, twin))
    assert [completion for completion, _ in ours] == [completion for completion, _ in theirs]
    assert [log_prob for _, log_prob in ours] == pytest.approx([log_prob for _, log_prob in theirs], rel=1e-4)


@needs_vllm
def test_a_stream_goes_on_where_it_stopped(engine: VllmEngine) -> None:
    options = {"temperature": 1.0, "max_new_tokens": 6, "seed": 3}
    whole = engine.sample(PROMPTS, samples=10, **options)
    start, rest = engine.sample(PROMPTS, samples=4, **options), engine.sample(PROMPTS, samples=6, first=4, **options)
    assert whole == [a + b for a, b in zip(start, rest, strict=True)]
    assert len({draw.text for draw in whole[0]}) > 5
    alone = engine.sample([Prompt(TEXTS[0], key="0")], samples=10, **options)
    assert alone == whole[:1]
    assert engine.sample([Prompt(TEXTS[0], key="x")], samples=10, **options) != alone
    assert engine.sample(PROMPTS[:1], samples=10, **{**options, "seed": 4}) != alone


@needs_vllm
def test_the_most_likely_comes_last_and_progress_adds_up(engine: VllmEngine) -> None:
    told: list[int] = []
    options = {"samples": 3, "temperature": 1.0, "max_new_tokens": 6, "seed": 0}
    both = engine.sample(PROMPTS, greedy=True, advance=told.append, **options)
    assert sum(told) == len(PROMPTS)
    assert len(told) > 1
    assert [draws[-1] for draws in both] == engine.greedy(TEXTS, max_new_tokens=6)
    assert [draws[:-1] for draws in both] == engine.sample(PROMPTS, **options)


@needs_vllm
def test_a_draw_ends_at_the_first_token_that_meets_the_test(engine: VllmEngine) -> None:
    options = {"samples": 30, "temperature": 1.3, "max_new_tokens": 12, "seed": 1}
    meets = lambda index, text: len(text) % (5 + index) == 4  # noqa: E731  (not monotone: later texts may miss it)
    free = engine.sample(PROMPTS, **options)
    cut = engine.sample(PROMPTS, stop=meets, **options)
    kinds: Counter[str] = Counter()
    for index, (whole, ended) in enumerate(zip(free, cut, strict=True)):
        for long, short in zip(whole, ended, strict=True):
            kinds[short.finish] += 1
            assert long.text.startswith(short.text.removesuffix("�"))
            assert short.finish != "stop" or meets(index, short.text)
            assert short.finish == "stop" or short == long
            assert short.tokens <= long.tokens <= 12
    assert set(kinds) == {"stop", "eos", "length"}
    assert {draw.finish for draws in free for draw in draws} == {"eos", "length"}


@needs_vllm
def test_cut_equals_reading_every_prefix(engine: VllmEngine) -> None:
    rng = np.random.default_rng(0)
    draws = [
        [*rng.integers(8, 40, rng.integers(1, 9)).tolist(), *([0] if rng.random() < 0.5 else [])] for _ in range(300)
    ]
    stop = lambda index, text: "an" in text or text.endswith(("e", "o"))  # noqa: E731
    assert engine._cut(0, draws, stop) == [_slowly(engine, ids, stop) for ids in draws]


def _slowly(engine: VllmEngine, ids: list[int], stop) -> Completion:
    for length in range(1, len(ids) + 1):
        text = engine.tokenizer.decode(ids[:length], skip_special_tokens=True)
        if ids[length - 1] == 0:
            return Completion(text, length, "eos")
        if stop(0, text):
            return Completion(text, length, "stop")
    return Completion(text, length, "length")


@needs_vllm
@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_first_tokens_follow_the_distribution(engine: VllmEngine, twin: TransformersEngine, temperature: float) -> None:
    """Neighbouring seeds, as vLLM gives them to the draws of one request, must be as good as independent."""
    requests, each = 50, 100
    with torch.inference_mode():
        logits = twin.model(torch.tensor([twin.tokenizer(TEXTS[0]).input_ids])).logits[0, -1]
    expected = torch.softmax(logits.double() / temperature, -1).numpy() * requests * each
    draws = engine._generate(
        [twin.tokenizer(TEXTS[0]).input_ids] * requests,
        [engine._params(1, n=each, temperature=temperature, seed=1000 * index) for index in range(requests)],
        each,
        None,
    )
    tokens = np.array([[ids[0] for ids in request] for request in draws])
    seen = np.bincount(tokens.ravel(), minlength=len(expected)).astype(float)
    often = expected >= 5
    observed, wanted = ([*counts[often], counts[~often].sum()] for counts in (seen, expected))
    cells = len(observed) - often.all()  # where no token is rare there is no cell of rare ones
    assert stats.chisquare(observed[:cells], wanted[:cells]).pvalue > 1e-3
    # Neighbours agree as often as independent draws would.
    chance = ((expected / expected.sum()) ** 2).sum()
    agree = int((tokens[:, 1:] == tokens[:, :-1]).sum())
    assert stats.binomtest(agree, requests * (each - 1), chance).pvalue > 1e-3


@needs_vllm
def test_bad_requests_are_refused(engine: VllmEngine) -> None:
    with pytest.raises(InputError, match="pass the model's context of 256"):
        engine.greedy(["a" * 300], max_new_tokens=8)
    with pytest.raises(InputError, match="temperature above 0"):
        engine.sample(PROMPTS, samples=1, temperature=0.0, max_new_tokens=4, seed=0)
    with pytest.raises(InputError, match="no chat template"):
        engine.sample([Prompt("", "k", user="Hello")], samples=1, temperature=1.0, max_new_tokens=4, seed=0)
    assert engine.sample([], samples=1, temperature=1.0, max_new_tokens=4, seed=0) == []


@needs_vllm
def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    model = tiny.model(hidden=128)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="NaN"):
        VllmEngine(tmp_path, load_tokenizer(tmp_path), dtype="float32", enforce_eager=True)


@needs_vllm
def test_what_vllm_cannot_load_is_one_line(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, hidden=128)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llamma", "architectures": ["Nobody"]}))
    with pytest.raises(InputError, match="vLLM cannot load it") as caught:
        VllmEngine(tmp_path, tiny.tokenizer())
    assert "\n" not in str(caught.value)
