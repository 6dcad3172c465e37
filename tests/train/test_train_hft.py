"""HFT: what is drawn stays bit for bit while it is, moments and all; draws follow the seed, not the run."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import train_twin as twin
from safetensors.torch import load_file

from knowshift import models
from knowshift.seeds import derive
from knowshift.train.methods import hft
from knowshift.weights.merge.hft import half
from knowshift.weights.regions import classify, unwrapped

pytestmark = pytest.mark.usefixtures("own_cache")


def drawn(names: Iterable[str], number: int, seed: int = 0) -> set[str]:
    short = half({unwrapped(name): classify(name) for name in names}, derive(seed, "hft", number))
    return {name for name in names if unwrapped(name) in short}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in left if torch.equal(left[name], right[name])}


def test_equals_a_loop_that_drops_gradients(base: Path, data: Path, tmp_path: Path) -> None:
    options = {"weight_decay": 0.1, "max_grad_norm": 0, "max_steps": 6}
    ours = twin.fit(base, data, tmp_path / "a", "hft", set={"hft.redraw": 2}, **options)
    optimizers: list[torch.optim.Optimizer] = []

    def step(weights: dict[str, torch.Tensor], gradients: dict[str, torch.Tensor], number: int) -> None:
        if not optimizers:
            matrices = [weight for weight in weights.values() if weight.ndim > 1]
            others = [weight for weight in weights.values() if weight.ndim == 1]
            groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
            optimizers.append(torch.optim.AdamW(groups, lr=1e-2))
        for name in drawn(weights, (number - 1) // 2):
            weights[name].grad = None
        optimizers[0].step()

    theirs = twin.loop(base, step, steps=6, clip=float("inf"))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=2e-6)


def test_half_of_every_block_stays_for_an_epoch(base_folder: Path, data: Path, tmp_path: Path) -> None:
    start = load_file(base_folder / "model.safetensors")
    options = {"max_steps": None, "batch_size": 2, "weight_decay": 0.1}
    once = same(start, twin.fit(base_folder, data, tmp_path / "a", "hft", epochs=1, **options))
    assert once == drawn(start, 0)
    for layer in "01":
        assert sum(f"layers.{layer}.self_attn" in name for name in once) == 2
        assert sum(f"layers.{layer}" in name and "norm" in name for name in once) == 1
    assert sum("mlp" in name for name in once) == 3
    assert "model.embed_tokens.weight" not in once
    twice = same(start, twin.fit(base_folder, data, tmp_path / "b", "hft", epochs=2, **options))
    assert twice == once & drawn(start, 1) != once
    other = same(start, twin.fit(base_folder, data, tmp_path / "c", "hft", epochs=1, seed=1, **options))
    assert other == drawn(start, 0, seed=1) != once


def test_what_is_drawn_later_stays_from_then_on(base_folder: Path, data: Path, tmp_path: Path) -> None:
    options = {"set": {"hft.redraw": 2}}
    middle = twin.fit(base_folder, data, tmp_path / "a", "hft", max_steps=2, **options)
    end = twin.fit(base_folder, data, tmp_path / "b", "hft", max_steps=4, **options)
    assert same(middle, end) == drawn(middle, 1)


def test_dropping_gradients_equals_not_computing_them(
    base_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"set": {"hft.redraw": 1}, "weight_decay": 0.1}
    alone = twin.fit(base_folder, data, tmp_path / "a", "hft", **options)
    monkeypatch.setattr(hft, "count", lambda: 2)
    several = twin.fit(base_folder, data, tmp_path / "b", "hft", **options)
    assert same(alone, several) == set(alone)


def test_a_frozen_gradient_is_never_computed(base_folder: Path) -> None:
    model = models.load_model(base_folder, dtype="float32", device="cpu")
    assert hft.count() == 1
    keeper = hft._Halves(1, 0)
    keeper.begin(model, torch.optim.AdamW(model.parameters()))
    for step in range(2):
        keeper.begin_update(model, step, 0)
        model(input_ids=torch.arange(8)[None]).logits.logsumexp(-1).sum().backward()
        without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
        assert without == drawn(dict(model.named_parameters()), step)
        model.zero_grad()


def test_frozen_parts_are_not_among_the_halves(base_folder: Path, data: Path, tmp_path: Path) -> None:
    start = load_file(base_folder / "model.safetensors")
    after = twin.fit(base_folder, data, tmp_path / "a", "freeze+hft", set={"hft.redraw": 4})
    free = {name for name in start if "attn" not in name}
    assert same(start, after) == (set(start) - free) | drawn(free, 0)
