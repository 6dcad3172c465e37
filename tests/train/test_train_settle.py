"""Settling: slopes against finite differences, the fit against its formulas, and both ends of the weight."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
import train_twin as twin
from safetensors.torch import load_file

from knowshift import models
from knowshift.errors import InputError
from knowshift.seeds import derive
from knowshift.train.gradients import shuffled
from knowshift.train.own_text import remembered, texts_of_base
from knowshift.weights.coefficients import REACH, Coefficients, between, slope

pytestmark = pytest.mark.usefixtures("own_cache")

Weights = dict[str, torch.Tensor]


SETTINGS = {"settle.texts": 4, "settle.tokens": 6, "settle.steps": 5}


@pytest.fixture(scope="module")
def as_trained(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Trained on what settle leaves to train on, and not settled."""
    return twin.fit(base, data, tmp_path_factory.mktemp("out") / "a", "settle", set={"settle.steps": 0})


def test_slopes_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    base, tuned = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    inputs = torch.randn(5, 3, dtype=torch.float64)

    def loss(a: torch.Tensor) -> torch.Tensor:
        first, second = (x + y * (z - x) for x, y, z in zip(base, a, tuned, strict=True))
        return ((inputs @ first.T).tanh() @ second).square().mean()

    at = torch.tensor([0.7, 0.2], dtype=torch.float64)
    weights = [between(b, t, float(a)).requires_grad_() for b, t, a in zip(base, tuned, at, strict=True)]
    ((inputs @ weights[0].T).tanh() @ weights[1]).square().mean().backward()
    for number, weight in enumerate(weights):
        step = torch.zeros(2, dtype=torch.float64)
        step[number] = 1e-5
        expected = (loss(at + step) - loss(at - step)) / 2e-5
        found = slope(weight.grad, base[number], tuned[number])
        assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ends_are_exact(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    base, tuned = torch.randn(1000).bfloat16(), (torch.randn(1000) * 1e3).to(dtype)
    assert torch.equal(between(base, tuned, 0), base.to(dtype)) and torch.equal(between(base, tuned, 1), tuned)


def test_coefficients_find_the_least_within_bounds() -> None:
    best = torch.tensor([0.3, 0.9, -2.0, 5.0], dtype=torch.float64)
    found = Coefficients(4, 60)
    for _ in range(60):
        found.move(2 * (found.values - best))
    torch.testing.assert_close(found.values, best.clamp(0, 1), atol=0.02, rtol=0)


def held_out(seed: int = 0) -> int:
    return shuffled(len(twin.PAIRS), derive(seed, "settle", "held out"))[0]


def test_without_steps_it_is_fine_tuning_on_the_rest(base: Path, tmp_path: Path, as_trained: Weights) -> None:
    lines = twin.write_pairs(tmp_path / "all.jsonl").read_text().splitlines(keepends=True)
    rest = tmp_path / "rest.jsonl"
    rest.write_text("".join(line for number, line in enumerate(lines) if number != held_out()))
    usual = twin.fit(base, rest, tmp_path / "a", "sft")
    assert twin.equal(as_trained, usual)


def test_a_huge_weight_stays_at_the_base(base: Path, data: Path, tmp_path: Path, as_trained: Weights) -> None:
    settings = SETTINGS | {"settle.weight": 1e9, "settle.steps": 16}
    ours = twin.fit(base, data, tmp_path / "a", "settle", set=settings)
    model, tokenizer = models.load_model(base, dtype="float32", device="cpu"), models.load_tokenizer(base)
    own = remembered(model, texts_of_base(model, tokenizer, 4, 6, derive(0, "settle", "text")))

    def divergence(weights: Weights) -> float:
        model.load_state_dict(weights, strict=False)
        with torch.no_grad():
            return float(own.divergence(range(4), model(**own.inputs(range(4), model.device)).logits))

    moved = divergence(as_trained)
    assert divergence(ours) < 0.05 * moved, (divergence(ours), moved)


def literal_fit(base: Path, tuned: Weights, weight: float, steps: int) -> dict[str, float]:
    """The method as its docstring has it, in plain loops."""
    model, tokenizer = models.load_model(base, dtype="float32", device="cpu"), models.load_tokenizer(base)
    parameters = dict(model.named_parameters())
    start = {name: value.detach().clone() for name, value in parameters.items()}
    texts = texts_of_base(model, tokenizer, 4, 6, derive(0, "settle", "text"))
    with torch.no_grad():
        expected = [model(input_ids=torch.tensor([text])).logits[0].softmax(-1) for text in texts]
    prompt, completion = twin.PAIRS[held_out()]
    asked = tokenizer(prompt).input_ids
    ids = torch.tensor([*asked, *tokenizer(completion).input_ids, tokenizer.eos_token_id])
    values, m, v = (dict.fromkeys(parameters, x) for x in (1.0, 0.0, 0.0))
    for step in range(1, steps + 1):
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(start[name] + values[name] * (tuned[name] - start[name]))
        model.zero_grad()
        log_probs = model(input_ids=ids[None]).logits[0, len(asked) - 1 : -1].log_softmax(-1)
        task = -log_probs.gather(-1, ids[len(asked) :, None]).mean()
        terms = []
        for text, p in zip(texts, expected, strict=True):
            q = model(input_ids=torch.tensor([text])).logits[0].softmax(-1)
            for one, other in zip(p, q, strict=True):
                top = one.topk(64).indices
                rest = torch.ones(400, dtype=torch.bool)
                rest[top] = False
                left = (one[rest].sum(), other[rest].sum())
                terms.append((one[top] * (one[top] / other[top]).log()).sum() + left[0] * (left[0] / left[1]).log())
        (task + weight * torch.stack(terms).mean()).backward()
        rate = 2 * REACH * (steps - step + 1) / (steps * (steps + 1))
        for name, parameter in parameters.items():
            g = float((parameter.grad * (tuned[name] - start[name])).sum())
            m[name], v[name] = 0.8 * m[name] + 0.2 * g, 0.95 * v[name] + 0.05 * g * g
            hat = (m[name] / (1 - 0.8**step)) / ((v[name] / (1 - 0.95**step)) ** 0.5 + 1e-8)
            values[name] = min(1.0, max(0.0, values[name] - rate * hat))
    return values


def test_equals_the_formulas_and_writes_what_it_found(
    base: Path, data: Path, tmp_path: Path, as_trained: Weights
) -> None:
    ours = twin.fit(base, data, tmp_path / "a", "settle", set=SETTINGS | {"settle.weight": 3})
    table = pl.read_parquet(tmp_path / "a" / "coefficients.parquet")
    found = dict(zip(table["tensor"], table["coefficient"], strict=True))
    expected = literal_fit(base, as_trained, 3, 5)
    assert found == pytest.approx(expected, abs=2e-3)
    assert 0 < min(found.values()) < 0.9 and len(set(found.values())) > 5
    before = load_file(base / "model.safetensors")
    for name, tensor in ours.items():
        assert torch.equal(tensor, between(before[name], as_trained[name], found[name])), name
    assert table["parameters"].to_list() == [before[name].numel() for name in table["tensor"]]


def test_settled_in_between_training_goes_on_from_there(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"set": SETTINGS | {"settle.every": 2}, "save_steps": 1}
    whole = twin.fit(base, data, tmp_path / "a", "settle", **options)
    once = twin.fit(base, data, tmp_path / "b", "settle", set=SETTINGS)
    assert not twin.equal(whole, once)

    from knowshift.train.methods.settle import _Settler

    usual: Callable[..., None] = _Settler.after_update

    def dies(self: _Settler, model: torch.nn.Module, rate: float) -> None:
        usual(self, model, rate)
        if self.step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(_Settler, "after_update", dies)
        twin.fit(base, data, tmp_path / "c", "settle", **options)
    again = twin.fit(base, data, tmp_path / "c", "settle", **options)
    assert twin.equal(whole, again)


def test_texts_are_the_base_s_and_self_divergence_is_nothing(base: Path) -> None:
    model, tokenizer = models.load_model(base, dtype="float32", device="cpu"), models.load_tokenizer(base)
    texts = texts_of_base(model, tokenizer, 6, 9, 1)
    assert texts == texts_of_base(model, tokenizer, 6, 9, 1) != texts_of_base(model, tokenizer, 6, 9, 2)
    assert len({tuple(text) for text in texts}) > 1 and all(text[0] == 0 and len(text) <= 10 for text in texts)
    own = remembered(model, texts)
    rows = range(len(texts))
    with torch.no_grad():
        logits = model(**own.inputs(rows, model.device)).logits
        assert float(own.divergence(rows, logits)) == pytest.approx(0, abs=1e-4)
        assert float(own.divergence(rows, logits + torch.randn_like(logits))) > 1
    assert own.tokens(rows) == sum(map(len, texts))


def test_one_example_cannot_be_held_out(base: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    file.write_text(data.read_text().splitlines()[0])
    with pytest.raises(InputError, match="at least 2"):
        twin.fit(base, file, tmp_path / "a", "settle")
