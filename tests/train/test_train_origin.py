"""Base values by parameter equal what transformers loads, of every architecture, wrapped, tied or divided."""

from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import tiny
from knowshift import models
from knowshift.train.origin import Origin, local, trained
from knowshift.weights.checkpoint import Checkpoint


def saved(folder: Path, kind: str) -> Path:
    model = tiny.specimen(kind)
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh model's norms and biases are all alike
            parameter.copy_(torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", sorted(tiny.ZOO))
def test_every_parameter_is_what_was_loaded(tmp_path: Path, kind: str) -> None:
    folder = saved(tmp_path, kind)
    model = models.load_model(folder, dtype="float32", device="cpu")
    expected = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    origin = Origin(model, Checkpoint.open(folder))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for name, parameter in model.named_parameters():
        value = origin.of(name, parameter)
        assert value.dtype == torch.bfloat16, name
        assert torch.equal(value.float(), expected[name]), name
    assert not origin._computed


def test_tied_parameters_are_one_and_wrapped_names_are_known(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "a", "llama")
    model = models.load_model(folder, dtype="float32", device="cpu")
    origin = Origin(model, Checkpoint.open(folder))
    names = [name for name, _ in trained(model)]
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names
    head = model.lm_head.weight
    assert torch.equal(origin.of("lm_head.weight", head).float(), head)
    wrapped = torch.nn.Module()
    wrapped.module = torch.compile(model)
    seen = dict(trained(wrapped))
    assert all(name.startswith("module._orig_mod.") for name in seen)
    assert all(torch.equal(origin.of(name, parameter).float(), parameter) for name, parameter in seen.items())
    with pytest.raises(KeyError):
        origin.of("model.layers.0.self_attn.q_proj.lora_A.default.weight", head)


def test_what_was_computed_while_loading_is_kept(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "a", "llama")
    model = models.load_model(folder, dtype="float32", device="cpu")
    base = Checkpoint.open(folder)
    del base.tensors["model.norm.weight"]
    origin = Origin(model, base)
    before = model.model.norm.weight.detach().clone()
    with torch.no_grad():
        model.model.norm.weight.zero_()
    assert torch.equal(origin.of("model.norm.weight", model.model.norm.weight), before)


@pytest.fixture
def last_of_three(base_folder: Path):
    """A mesh as the last of three processes sees it, with nobody to talk to. Checkpoints are written by the first."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=2, world_size=3)
    yield init_device_mesh("cpu", (3,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("placement", [Shard(0), Shard(1), Replicate()])
def test_a_divided_parameter_gets_its_part(base_folder: Path, last_of_three, placement) -> None:
    model = models.load_model(base_folder, dtype="float32", device="cpu")
    origin = Origin(model, Checkpoint.open(base_folder))
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 and placement == Shard(1):
            continue
        divided = distribute_tensor(parameter.detach(), last_of_three, [placement], src_data_rank=None)
        part = origin.of(name, divided)
        assert part.shape == local(divided).shape
        assert torch.equal(part.float(), local(divided)), name
        if placement == Shard(0):
            assert torch.equal(part.float(), parameter[2 * -(-len(parameter) // 3) :]), name
