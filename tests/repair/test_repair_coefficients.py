"""Learned coefficients: losses as measured, slopes as torch finds them, harm in one tensor undone."""

import pytest
import torch
from lessons_given import objective
from transformers import AutoModelForCausalLM

import tiny
from knowshift.errors import InputError
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.models import load_model, load_tokenizer
from knowshift.repair.coefficients import candidates, learn, slopes, stronger
from knowshift.repair.lessons import Lessons
from knowshift.weights.merge.coefficients import Coefficients
from knowshift.weights.sweep import Sweep


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny.checkpoint(folder / "base", request.param, dtype=torch.float32)
    return base, tiny.nudge(base, folder / "tuned", scale=0.05, share=1.0)


def lessons_of(folder, metric="exact"):
    return Lessons(load_model(folder, dtype="float32"), load_tokenizer(folder), objective(metric))


def test_the_loss_is_that_of_the_answers_as_they_are_measured(pair):
    lessons = lessons_of(pair[1], "contains")
    asked = objective("contains")
    table = asked.measure(TransformersEngine(lessons.model, load_tokenizer(pair[1])), "search")
    for kind in ("knowledge", "task"):
        own = table.filter(kind=kind)["log_prob"].to_list()
        assert len(own) == len(lessons.passages[kind])
        for number in range(0, len(own), 5):
            tokens = lessons.passages[kind][number].kept
            assert lessons.loss(kind, [number]) == pytest.approx(-own[number] * tokens, rel=1e-4)
        some = list(range(11))
        wanted = -sum(own[number] * lessons.passages[kind][number].kept for number in some) / len(some)
        assert lessons.loss(kind, some) == pytest.approx(wanted, rel=1e-4)


def test_only_exact_answers_must_end():
    model, tokenizer = tiny.model(), tiny.tokenizer()
    exact, contains = (Lessons(model, tokenizer, objective(metric)).passages for metric in ("exact", "contains"))
    assert exact["knowledge"] == contains["knowledge"]
    for left, right in zip(exact["task"], contains["task"], strict=True):
        assert left.targets == (*right.targets, tokenizer.eos_token_id)


def test_packed_texts_have_the_loss_and_gradient_of_padded_ones(pair):
    lessons = lessons_of(pair[1])
    assert lessons._packs
    found = []
    for packs in (True, False):
        lessons._packs = packs
        loss = lessons.backward("knowledge", range(20), 0.5)
        found.append((loss, [parameter.grad.clone() for parameter in lessons.model.parameters()]))
        lessons.model.zero_grad()
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for left, right in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5)


def test_slopes_are_the_gradient_on_the_coefficients(pair):
    base, tuned = pair
    lessons = lessons_of(tuned)
    sweep = Sweep(lessons.model, base, tuned, region="all")
    places = sweep.places("all")
    numbers, weight = range(9), 3.0
    lessons.backward("knowledge", numbers)
    lessons.backward("task", numbers, weight)
    fast = dict(zip([entry.name for entry, _ in places], slopes(lessons.model, places).tolist(), strict=True))
    # The slow twin: a model whose weights are a function of the coefficients, dense, by functional_call.
    left, right = (AutoModelForCausalLM.from_pretrained(folder, dtype="float32") for folder in pair)
    ends = {name: (value.detach(), dict(right.named_parameters())[name].detach())
            for name, value in left.named_parameters()}  # fmt: skip
    alphas = {name: torch.ones((), requires_grad=True) for name in ends}
    mixed = {name: start + alphas[name] * (stop - start) for name, (start, stop) in ends.items()}

    class Mixed(torch.nn.Module):
        config, device = right.config, right.device

        def forward(self, **inputs):
            return torch.func.functional_call(right, mixed, (), inputs)

    lessons.model, lessons._packs = Mixed(), False
    loss = sum(lessons._parts("knowledge", numbers)) / len(numbers)
    loss = loss + weight * sum(lessons._parts("task", numbers)) / len(numbers)
    slow = dict(zip(alphas, torch.autograd.grad(loss, list(alphas.values())), strict=True))
    assert {name for name in fast if name in slow} and len(fast) >= len(slow)
    scale = max(map(abs, fast.values()))
    for name, value in fast.items():
        assert value == pytest.approx(float(slow[name]), abs=1e-4 * scale), name


def planted(base, folder, name="model.layers.1.mlp.down_proj.weight"):
    """The tuned model of a base: a little noise everywhere, and harm in one matrix."""
    tuned = tiny.nudge(base, folder, scale=1e-3, share=1.0)
    model = AutoModelForCausalLM.from_pretrained(tuned, dtype="auto")
    with torch.no_grad():
        model.get_parameter(name).add_(torch.randn(model.get_parameter(name).shape) * 0.5)
    model.save_pretrained(tuned)
    return tuned


def taught(folder):
    """A model that has learned the facts and items, so that harm shows."""
    tiny.checkpoint(folder, dtype=torch.float32)
    model = load_model(folder, dtype="float32").train()
    lessons = Lessons(model, load_tokenizer(folder), objective())
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(60):
        for kind in ("knowledge", "task"):
            lessons.backward(kind, [(8 * step + number) % 30 for number in range(8)])
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def test_harm_in_one_matrix_is_learned_away_and_the_model_comes_back(tmp_path):
    torch.manual_seed(0)
    base = taught(tmp_path / "base")
    name = "model.layers.1.mlp.down_proj.weight"
    tuned = planted(base, tmp_path / "tuned", name)
    lessons = lessons_of(tuned)
    before = {key: value.clone() for key, value in lessons.model.state_dict().items()}
    sweep = Sweep(lessons.model, base, tuned, region="all")
    values = learn(sweep, lessons, weight=1.0, steps=20)
    assert values[name] < 0.05
    others = [value for key, value in values.items() if key != name]
    assert sum(others) / len(others) > 0.5
    assert all(torch.equal(value, before[key]) for key, value in lessons.model.state_dict().items())
    assert all(parameter.grad is None for parameter in lessons.model.parameters())
    harmed = lessons.loss("knowledge", range(20))
    with sweep.made("x", Coefficients(values), region="all"):
        assert lessons.loss("knowledge", range(20)) < 0.5 * harmed


def test_a_result_is_a_file_and_not_learned_again(pair, tmp_path, monkeypatch):
    import knowshift.repair.coefficients as room

    monkeypatch.setattr(room, "STEPS", 2)
    base, tuned = pair
    lessons = lessons_of(tuned)
    sweep = Sweep(lessons.model, base, tuned, region="all")
    monkeypatch.setattr(room, "learn", lambda *args, **options: learn(*args, **options, steps=2))
    first = candidates(sweep, lessons, tmp_path, 0, 60)
    assert len({each.name for each in first}) == len(first) == len(room.WEIGHTS) * len(room.STRENGTHS)
    monkeypatch.setattr(room, "learn", None)
    assert candidates(sweep, lessons, tmp_path, 0, 60) == first
    for each in first:
        values = each.how.values
        assert all(0 <= value <= 1 for value in values.values()) and any(value < 1 for value in values.values())


def test_strength():
    assert stronger(0.75, 2) == 0.5 and stronger(0.75, 1) == 0.75 and stronger(0.2, 2) == 0 and stronger(1.0, 9) == 1


def test_coefficients_are_checked(pair):
    sweep = Sweep(load_model(pair[1], dtype="float32"), *pair, region="all")
    with pytest.raises(InputError, match=r"'no\.such\.tensor'"), sweep.made("x", Coefficients({"no.such.tensor": 0.5})):
        pass
    with pytest.raises(InputError, match=r"coefficient of a 1\.5"):
        Coefficients({"a": 1.5})
