"""L2-SP: its formula, nothing at weight 0, the base itself at a huge weight."""

from pathlib import Path

import pytest
import torch
import train_twin as twin
from safetensors.torch import load_file

from knowshift import models
from knowshift.errors import InputError
from knowshift.train.methods import chosen
from knowshift.train.methods.l2_sp import _Pull
from knowshift.train.origin import Origin, local
from knowshift.weights.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("weight", [20.0, 300.0])
def test_equals_the_formula(base: Path, data: Path, tmp_path: Path, weight: float) -> None:
    rate = 1e-2
    ours = twin.fit(base, data, tmp_path / "a", "l2-sp", set={"l2-sp.weight": weight}, learning_rate=rate)
    start = load_file(base / "model.safetensors")
    optimizers: list[torch.optim.Optimizer] = []

    def step(weights: dict[str, torch.Tensor], gradients: dict[str, torch.Tensor], number: int) -> None:
        if not optimizers:
            optimizers.append(torch.optim.AdamW(list(weights.values()), lr=rate, weight_decay=0))
        optimizers[0].step()
        for name, value in weights.items():
            value.copy_(start[name] + (value - start[name]) / (1 + rate * weight))

    theirs = twin.loop(base, step)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=2e-6)
    assert not twin.equal(ours, start)


def test_weight_0_is_sft_and_a_huge_one_stays(base_folder: Path, data: Path, tmp_path: Path) -> None:
    sft = twin.fit(base_folder, data, tmp_path / "a", "sft")
    assert twin.equal(sft, twin.fit(base_folder, data, tmp_path / "b", "l2-sp", set={"l2-sp.weight": 0}))
    start = load_file(base_folder / "model.safetensors")
    assert not twin.equal(sft, start)
    assert twin.equal(start, twin.fit(base_folder, data, tmp_path / "c", "l2-sp", set={"l2-sp.weight": 1e300}))


def test_frozen_weights_are_left_alone_and_the_rate_may_be_0(base_folder: Path, data: Path, tmp_path: Path) -> None:
    options = {"scheduler": "cosine", "warmup": 1, "set": {"l2-sp.weight": 1}}
    after = twin.fit(base_folder, data, tmp_path / "a", "freeze+l2-sp", **options)
    start = load_file(base_folder / "model.safetensors")
    assert {name for name in start if torch.equal(start[name], after[name])} == {n for n in start if "attn" in n}
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_an_adapter_is_refused() -> None:
    with pytest.raises(InputError, match="l2-sp trains the weights themselves, lora an adapter"):
        chosen("lora+l2-sp", {})


def test_each_process_pulls_its_own_part(base_folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    model = models.load_model(base_folder, dtype="float32", device="cpu")
    origin = Origin(model, Checkpoint.open(base_folder))
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        parts = {name: local(parameter) for name, parameter in model.named_parameters()}
        start = {name: part.clone() for name, part in parts.items()}
        for part in parts.values():
            part.add_(1.0)
        _Pull(origin, 50.0).after_update(model, 0.01)
    finally:
        torch.distributed.destroy_process_group()
    assert any(part.shape != model.get_parameter(name).shape for name, part in parts.items())
    for name, part in parts.items():
        torch.testing.assert_close(part, start[name] + 1 / 1.5)
