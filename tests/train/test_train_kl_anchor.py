"""The KL anchor: its formula and gradient, where it holds, and that the base starts out as the very same model."""

from pathlib import Path

import polars as pl
import pytest
import torch
import train_twin as twin
from safetensors.torch import load_file

import tiny
from knowshift import models
from knowshift.errors import InputError
from knowshift.train import divergence
from knowshift.train.heads import Body, Head, places
from knowshift.train.methods import chosen
from knowshift.train.methods.method import Run
from knowshift.train.options import TrainOptions
from knowshift.train.reference import Copy

pytestmark = pytest.mark.usefixtures("own_cache")


def logged(folder: Path) -> list[float]:
    """The divergence of every update, as the training log has it."""
    return pl.read_parquet(folder / "train_log.parquet")["kl_anchor"].to_list()


def literal(base: torch.Tensor, tuned: torch.Tensor, direction: str) -> torch.Tensor:
    """Row by row, token by token, as the definition has it."""
    p, q = base.softmax(-1), tuned.softmax(-1)
    return (p * (p / q).log()).sum(-1) if direction == "base-tuned" else (q * (q / p).log()).sum(-1)


def told(base: Path, on: str) -> list[tuple[torch.Tensor, slice]]:
    """Token ids of each pair, and the positions that predict what ``on`` names."""
    tokenizer = models.load_tokenizer(base)
    rows = []
    for prompt, completion in twin.PAIRS:
        asked = tokenizer(prompt).input_ids
        ids = torch.tensor([*asked, *tokenizer(completion).input_ids, tokenizer.eos_token_id])
        first, last = len(asked) - 1, len(ids) - 1
        rows.append((ids, {"prompts": slice(0, first), "completions": slice(first, last), "all": slice(0, last)}[on]))
    return rows


def plain_loop(
    base: Path, texts: list[list[tuple[torch.Tensor, slice]]], weight: float, direction: str, learned: int | None = None
):
    """A loop around the two terms of the loss; ``texts`` are those anchored at each step, divided by ``learned``."""
    model = models.load_model(base, dtype="float32", device="cpu")
    reference = models.load_model(base, dtype="float32", device="cpu")
    tokenizer = models.load_tokenizer(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    seen = []
    for rows in texts:
        terms = []
        for ids, where in rows:
            with torch.no_grad():
                before = reference(input_ids=ids[None]).logits[0, where]
            terms.append(literal(before, model(input_ids=ids[None]).logits[0, where], direction))
        kl = torch.cat(terms).mean()
        seen.append(kl.item())
        if learned is not None:
            kl = torch.cat(terms).sum() / learned
        optimizer.zero_grad()
        (twin.loss(model, tokenizer) + weight * kl).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return dict(model.named_parameters()), seen


@pytest.mark.parametrize(
    ("on", "direction"), [("prompts", "base-tuned"), ("completions", "tuned-base"), ("all", "base-tuned")]
)
def test_equals_the_formula(base: Path, data: Path, tmp_path: Path, on: str, direction: str) -> None:
    options = {"kl-anchor.weight": 3, "kl-anchor.on": on, "kl-anchor.direction": direction}
    ours = twin.fit(base, data, tmp_path / "a", "kl-anchor", set=options)
    learned = sum(at.stop - at.start for _, at in told(base, "completions"))
    theirs, seen = plain_loop(base, [told(base, on)] * 4, 3, direction, learned)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)
    found = logged(tmp_path / "a")
    assert found == pytest.approx(seen, rel=1e-3, abs=1e-6)
    assert found[0] == 0 < found[-1]


def test_other_texts_take_turns(base: Path, data: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text(" ".join(tiny.CORPUS))
    options = {"kl-anchor.weight": 2, "kl-anchor.data": str(texts), "kl-anchor.batch": 2, "kl-anchor.length": 9}
    ours = twin.fit(base, data, tmp_path / "a", "kl-anchor", set=options)
    (method,) = chosen("kl-anchor", options)
    settings = TrainOptions(model=str(base), data=data, out=tmp_path, method="kl-anchor", set=options)
    run = Run(base, models.load_tokenizer(base), [], settings)
    method.prepare(models.load_model(base, dtype="float32", device="cpu"), run)
    windows = [(torch.tensor(ids), slice(0, len(ids))) for ids in method._texts]
    tokens = models.load_tokenizer(base)(texts.read_text()).input_ids
    assert sorted(token for ids, _ in windows for token in ids.tolist()) == sorted(tokens[:-1])
    assert [ids.tolist() for ids, _ in windows] != [tokens[i : i + 9] for i in range(0, len(tokens) - 1, 9)]
    turns = [[windows[(2 * step + row) % len(windows)] for row in range(2)] for step in range(4)]
    theirs, _ = plain_loop(base, turns, 2, "base-tuned")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)


def test_how_batches_are_cut_does_not_matter(base: Path, data: Path, tmp_path: Path) -> None:
    set_ = {"kl-anchor.weight": 3, "kl-anchor.on": "all"}
    whole = twin.fit(base, data, tmp_path / "a", "kl-anchor", set=set_)
    parts = twin.fit(base, data, tmp_path / "b", "kl-anchor", set={**set_, "gradient_accumulation_steps": 2})
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, parts[name], rtol=1e-3, atol=1e-5)


def test_weight_0_is_sft_and_a_huge_one_keeps_the_distributions(base: Path, data: Path, tmp_path: Path) -> None:
    sft = twin.fit(base, data, tmp_path / "a", "sft")
    assert twin.equal(sft, twin.fit(base, data, tmp_path / "b", "kl-anchor", set={"kl-anchor.weight": 0}))
    assert "kl_anchor" not in pl.read_parquet(tmp_path / "b" / "train_log.parquet").columns
    # Loss and anchor are of the same tokens, so the anchor alone decides.
    for name, weight in (("c", 1e6), ("d", 1e-6)):
        set_ = {"kl-anchor.weight": weight, "kl-anchor.on": "all"}
        twin.fit(base, data, tmp_path / name, "kl-anchor", set=set_, scheduler="cosine", max_steps=20)
    assert logged(tmp_path / "c")[-1] < 0.005 * logged(tmp_path / "d")[-1]
    weak = pl.read_parquet(tmp_path / "d" / "train_log.parquet")["loss"]
    assert weak[-1] < weak[0] - 0.5


def test_under_an_adapter_the_base_is_the_model_without_it(base: Path, data: Path, tmp_path: Path) -> None:
    options = {"lora.rank": 2}
    for name, weight in (("a", 1e-6), ("b", 100.0)):
        set_ = {**options, "kl-anchor.weight": weight, "kl-anchor.on": "all"}
        twin.fit(base, data, tmp_path / name, "lora+kl-anchor", merge=True, set=set_, scheduler="cosine", max_steps=12)
    free, held = logged(tmp_path / "a"), logged(tmp_path / "b")
    assert free[0] == held[0] == 0 < held[-1] < 0.25 * free[-1]
    # The logged divergence is that of the model without its adapter, told from the weights that were written.
    before, after = (models.load_model(folder, dtype="float32", device="cpu") for folder in (base, tmp_path / "a"))
    with torch.no_grad():
        terms = [
            literal(before(input_ids=ids[None]).logits[0, at], after(input_ids=ids[None]).logits[0, at], "base-tuned")
            for ids, at in told(base, "all")
        ]
    assert torch.cat(terms).mean().item() > free[-1]
    none = twin.fit(base, data, tmp_path / "c", "lora+kl-anchor", merge=True, set={**options, "kl-anchor.weight": 0})
    assert twin.equal(none, twin.fit(base, data, tmp_path / "d", "lora", merge=True, set=options))


@pytest.mark.parametrize("direction", ["base-tuned", "tuned-base"])
def test_chunks_give_value_and_gradients_of_the_whole(monkeypatch: pytest.MonkeyPatch, direction: str) -> None:
    torch.manual_seed(0)
    states, others = torch.randn(7, 5, requires_grad=True), torch.randn(7, 5)
    weight, bias = torch.randn(11, 5, requires_grad=True), torch.randn(11, requires_grad=True)
    start = [torch.randn(11, 5), torch.randn(11)]

    def head(rows: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
        return 3 * torch.tanh((rows @ parameters[0].T + parameters[1]) / 3)

    def gradients(value: torch.Tensor) -> list[torch.Tensor]:
        return [value.detach(), *torch.autograd.grad(2 * value, [states, weight, bias])]

    expected = gradients(literal(head(others, start), head(states, [weight, bias]), direction).mean())
    for chunk in (11, 40, 10**6):
        monkeypatch.setattr(divergence, "CHUNK", chunk)
        arguments = (states, head, [weight, bias], others, head, start, direction)
        for ours, theirs in zip(gradients(divergence.mean_divergence(*arguments)), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    none = divergence.mean_divergence(states[:0], head, [weight, bias], others[:0], head, start, direction)
    assert none == 0 and torch.equal(torch.autograd.grad(none, weight)[0], torch.zeros(11, 5))
    frozen = divergence.mean_divergence(states, head, [weight.detach(), bias], others, head, start, direction)
    torch.testing.assert_close(torch.autograd.grad(2 * frozen, [states, bias]), (expected[1], expected[3]))


def test_gradient_by_the_logits_is_q_minus_p() -> None:
    torch.manual_seed(0)
    base, tuned = torch.randn(3, 9), torch.randn(3, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(divergence.divergence(base, tuned, "base-tuned"), tuned)
    torch.testing.assert_close(gradient, tuned.softmax(-1) - base.softmax(-1))


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, *tiny.FURTHER])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_copy_is_the_base_to_the_last_bit(tmp_path: Path, architecture: str, autocast: torch.dtype | None) -> None:
    folder = tiny.checkpoint(tmp_path / "m", architecture)
    model = models.load_model(folder, dtype="float32", device="cpu")
    head, body = Head(model), Body(model)
    head.check(model)
    copy = Copy(folder, torch.device("cpu"))
    assert {parameter.dtype for parameter in copy._model.parameters()} == {torch.bfloat16}
    inputs = {"input_ids": torch.randint(1, 300, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
    with torch.no_grad(), torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        caught = body.read(model, inputs)
    states = copy.states(model, inputs, caught)
    assert torch.equal(states, caught.states)
    ours, theirs = head(caught.states[0], head.parameters()), copy.head(states[0], copy.head.parameters())
    assert torch.equal(ours, theirs) and ours.dtype == torch.float32
    assert {parameter.dtype for parameter in copy._model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", sorted(tiny.ZOO))
def test_every_head_is_run_apart_or_refused(kind: str) -> None:
    model = tiny.specimen(kind).float()
    try:
        Head(model).check(model)
    except InputError as error:
        assert "cannot be run apart" in str(error)
        assert kind == "llama4_text"  # has no base model of its own, so TRL cannot train it either


def test_places_pass_over_padding_and_the_next_text_of_a_row() -> None:
    inputs = {
        "labels": torch.tensor([[-100, -100, 5, 6, -100, -100], [-100, 7, 8, -100, -100, 9]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]),
        "position_ids": torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]]),
    }
    assert places(inputs, "prompts").int().tolist() == [[1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]
    assert places(inputs, "completions").int().tolist() == [[0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 1, 0]]
    assert places(inputs, "all").int().tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0]]
    filler = {"labels": torch.full((1, 6), -100), "attention_mask": torch.ones(1, 6)}
    assert not places(filler, "prompts").any() and not places(filler, "all").any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 4}, r"--set kl-anchor\.batch: has no effect without --set kl-anchor\.data"),
        ({"data": "x", "on": "all"}, r"--set kl-anchor\.on: has no effect with --set kl-anchor\.data"),
        ({"data": "missing.txt"}, r"missing\.txt: no such file"),
        ({"data": "missing.txt", "length": 999}, r"kl-anchor\.length=999: the model's context is 256"),
        ({"weight": -1}, r"--set kl-anchor\.weight -1"),
        ({"direction": "both"}, r"--set kl-anchor\.direction"),
    ],
)
def test_what_makes_no_sense_is_refused(base: Path, data: Path, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        set_ = {f"kl-anchor.{name}": value for name, value in options.items()}
        twin.fit(base, data, tmp_path / "a", "kl-anchor", set=set_)
    assert "\n" not in str(caught.value)


def test_a_loaded_model_is_left_as_it_was(base: Path) -> None:
    model = models.load_model(base, dtype="float32", device="cpu")
    before = load_file(base / "model.safetensors")
    Head(model).check(model)
    assert not model.base_model._forward_hooks
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
