"""MoFO against its formula, its filter on the written weights, and AdamW bit for bit where nothing is filtered."""

from pathlib import Path

import pytest
import torch
import train_twin as twin

from knowshift.errors import InputError
from knowshift.train.filtered import FilteredAdamW

pytestmark = pytest.mark.usefixtures("own_cache")


def test_equals_the_formula(base: Path, data: Path, tmp_path: Path) -> None:
    share, rate, decay, betas, eps = 0.3, 1e-2, 0.1, (0.9, 0.999), 1e-8
    ours = twin.fit(base, data, tmp_path / "a", "mofo", set={"mofo.share": share}, weight_decay=decay)
    m: dict[str, torch.Tensor] = {}
    v: dict[str, torch.Tensor] = {}
    moved = []

    def step(weights: dict[str, torch.Tensor], gradients: dict[str, torch.Tensor], t: int) -> None:
        for name, weight in weights.items():
            gradient = gradients[name]
            m[name] = betas[0] * m.get(name, 0) + (1 - betas[0]) * gradient
            v[name] = betas[1] * v.get(name, 0) + (1 - betas[1]) * gradient**2
            order = m[name].abs().flatten().argsort(descending=True)[: int(weight.numel() * share)]
            m_hat, v_hat = m[name] / (1 - betas[0] ** t), v[name] / (1 - betas[1] ** t)
            decayed = weight * (1 - rate * decay) if weight.ndim > 1 else weight
            new = decayed - rate * m_hat / (v_hat.sqrt() + eps)
            weight.view(-1)[order] = new.view(-1)[order]
            moved.append(len(order))

    theirs = twin.loop(base, step)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=2e-6)
    assert min(moved) > 0


def test_one_step_moves_exactly_the_share_of_each_tensor(base: Path, data: Path, tmp_path: Path) -> None:
    before = twin.fit(base, data, tmp_path / "a", "sft", max_steps=1, learning_rate=1e-30)
    after = twin.fit(base, data, tmp_path / "b", "mofo", max_steps=1, set={"mofo.share": 0.07}, weight_decay=0.1)
    for name, tensor in before.items():
        changed = int((tensor != after[name]).sum())
        count = max(1, tensor.numel() * 7 // 100)
        # Where few tokens occurred, fewer rows of an embedding than its share have a gradient at all.
        assert changed == count or ("embed" in name and changed <= count), name


def test_all_of_it_is_adamw_bit_for_bit(base: Path, data: Path, tmp_path: Path) -> None:
    usual = twin.fit(base, data, tmp_path / "a", "sft", weight_decay=0.1)
    assert twin.equal(usual, twin.fit(base, data, tmp_path / "b", "mofo", set={"mofo.share": 1}, weight_decay=0.1))
    assert not twin.equal(
        usual, twin.fit(base, data, tmp_path / "c", "mofo", set={"mofo.share": 0.9}, weight_decay=0.1)
    )


def test_goes_on_from_a_saved_state_bit_for_bit() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(6, 5), torch.randn(4, 6, 5)

    def made(value: torch.Tensor) -> tuple[torch.nn.Parameter, FilteredAdamW]:
        parameter = torch.nn.Parameter(value.clone())
        return parameter, FilteredAdamW([parameter], share=0.2, lr=0.1, weight_decay=0.1)

    def moved(parameter: torch.nn.Parameter, optimizer: FilteredAdamW, by: torch.Tensor) -> torch.Tensor:
        for gradient in by:
            parameter.grad = gradient.clone()
            optimizer.step()
        return parameter.detach()

    through = moved(*made(start), gradients)
    parameter, optimizer = made(start)
    half = moved(parameter, optimizer, gradients[:2])
    parameter, fresh = made(half)
    fresh.load_state_dict(optimizer.state_dict())
    assert torch.equal(moved(parameter, fresh, gradients[2:]), through)


def test_an_adapter_s_matrices_are_filtered_too(base: Path, data: Path, tmp_path: Path) -> None:
    options = {"merge": True, "set": {"lora.rank": 2, "mofo.share": 0.05}}
    thin = twin.fit(base, data, tmp_path / "a", "lora+mofo", **options)
    assert not twin.equal(thin, twin.fit(base, data, tmp_path / "b", "lora", merge=True, set={"lora.rank": 2}))


def test_other_optimizers_and_shares_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--set optim=sgd: the method needs"):
        twin.fit(base, data, tmp_path / "a", "mofo", set={"optim": "sgd"})
    with pytest.raises(InputError, match=r"mofo\.share"):
        twin.fit(base, data, tmp_path / "a", "mofo", set={"mofo.share": 0})
