"""The largest magnitudes of many tensors, against a stable sort; alone and shared among processes."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed as dist
from torch.multiprocessing import spawn

from knowshift.train.largest import largest


def by_sorting(tensors: list[torch.Tensor], count: int) -> list[torch.Tensor]:
    flat = torch.cat([tensor.float().abs().flatten() for tensor in tensors])
    mask = torch.zeros(flat.numel(), dtype=torch.bool)
    mask[flat.sort(descending=True, stable=True).indices[:count]] = True
    parts = mask.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


NUMBERS = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45]), st.floats(width=32, allow_nan=False))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(NUMBERS, max_size=12), min_size=1, max_size=4), st.data())
def test_equals_a_stable_sort(lists: list[list[float]], data: st.DataObject) -> None:
    tensors = [torch.tensor(numbers, dtype=torch.float32) for numbers in lists]
    count = data.draw(st.integers(0, sum(map(len, lists))))
    masks = list(largest(tensors, count))
    assert same(masks, by_sorting(tensors, count))
    assert sum(int(mask.sum()) for mask in masks) == count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_thousands_of_numbers_of_one_bin_and_of_many(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(40, 50).to(dtype), (1 + torch.rand(3000) / 256).to(dtype), torch.randn(7, 15).T.to(dtype)]
    for count in (1, 99, 2500, sum(tensor.numel() for tensor in tensors)):
        assert same(list(largest(tensors, count)), by_sorting(tensors, count))


def _own_rows(rank: int, world: int, folder: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    torch.manual_seed(0)
    # Many equal values, a tensor that rows do not divide evenly, one that is whole everywhere.
    whole = [torch.randint(-3, 4, shape).float() for shape in ((5, 4), (1, 6), (9,))]
    shared = [
        distribute_tensor(whole[0], mesh, [Shard(0)]),
        distribute_tensor(whole[1], mesh, [Shard(0)]),
        distribute_tensor(whole[2], mesh, [Replicate()]),
    ]
    for count in range(sum(tensor.numel() for tensor in whole) + 1):
        expected = by_sorting(whole, count)
        for mask, right, tensor in zip(largest(shared, count), expected, shared, strict=True):
            own = distribute_tensor(right.float(), mesh, tensor.placements).to_local().bool()
            assert torch.equal(mask, own), (rank, count)
    dist.destroy_process_group()


def test_two_processes_mark_what_one_would(tmp_path: Path) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    spawn(_own_rows, (2, str(tmp_path)), nprocs=2)
