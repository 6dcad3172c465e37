"""Which of many numbers are largest in magnitude: exactly, without sorting, also when processes share them.

Without its sign, a float32's bit pattern orders like the number. Counting the patterns' high halves finds the bin
that the wanted rank falls into, counting the low halves within it the threshold. Two passes and two tables, whatever
the count; tables of processes add up. Knows tensors, not what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from knowshift.train.origin import local

_HALF = 16
_BINS = 1 << _HALF


def largest(tensors: Sequence[Tensor], count: int) -> Iterator[Tensor]:
    """Mark the ``count`` largest magnitudes of all ``tensors`` together.

    Elements above the threshold are always marked; among equals, the first in (tensor, row-major position).

    Args:
        tensors: float, on one device. Of ``DTensor``\\ s, split along at most one dimension of their mesh, every
            process passes its own, in the same order.
        count: at most as many as there are elements.

    Yields:
        For each tensor, a bool mask of the shape of its local part; ``count`` in all, over all processes.
    """
    groups = [sharers(tensor) for tensor in tensors]
    if count <= 0:
        yield from (torch.zeros_like(local(tensor), dtype=torch.bool) for tensor in tensors)
        return
    high, wanted = _find(_counted(tensors, groups, lambda keys: keys >> _HALF), count)
    within = _counted(tensors, groups, lambda keys: keys[(keys >> _HALF) == high] & (_BINS - 1))
    low, ties = _find(within, wanted)
    threshold = (high << _HALF) + low
    for tensor, group in zip(tensors, groups, strict=True):
        keys = _keys(tensor)
        mask = keys > threshold
        equal = keys == threshold
        own = int(equal.sum())
        before, everywhere = _shared_out(own, group, keys.device)
        taken = min(own, max(0, ties - before))
        if taken:
            mask.view(-1)[equal.view(-1).nonzero()[:taken, 0]] = True
        ties -= min(ties, everywhere)
        yield mask


def _keys(tensor: Tensor) -> Tensor:
    return local(tensor).float().abs().contiguous().view(torch.int32)


def _find(table: Tensor, count: int) -> tuple[int, int]:
    """The bin of the ``count``-th largest key, and how many of that bin's are among the ``count`` largest."""
    reached = table.flip(0).cumsum(0)
    place = int(torch.searchsorted(reached, count))
    before = int(reached[place - 1]) if place else 0
    return len(table) - 1 - place, count - before


def _counted(tensors: Sequence[Tensor], groups: Sequence[Any], part: Callable[[Tensor], Tensor]) -> Tensor:
    """How often each key's half occurs: in what this process has whole, and in what it shares with others."""
    tables: dict[Any, Tensor] = {}
    for tensor, group in zip(tensors, groups, strict=True):
        counts = torch.bincount(part(_keys(tensor)).view(-1), minlength=_BINS)
        tables[group] = tables[group] + counts if group in tables else counts
    for group, table in tables.items():
        if group is not None:
            dist.all_reduce(table, group=group)
    return torch.stack(list(tables.values())).sum(0).cpu()


def _shared_out(own: int, group: Any, device: torch.device) -> tuple[int, int]:
    """Of elements of which this process holds ``own``: how many lie with processes before it, and with all."""
    if group is None:
        return 0, own
    counts = torch.zeros(dist.get_world_size(group), dtype=torch.int64, device=device)
    counts[dist.get_rank(group)] = own
    dist.all_reduce(counts, group=group)
    return int(counts[: dist.get_rank(group)].sum()), int(counts.sum())


def sharers(tensor: Tensor) -> Any:
    """The processes among which a tensor is split by rows; None where this one holds all of it."""
    placements = getattr(tensor, "placements", ())
    split = [dimension for dimension, placement in enumerate(placements) if placement.is_shard()]
    if not split:
        return None
    if len(split) > 1 or not placements[split[0]].is_shard(0):
        raise NotImplementedError(f"a tensor placed as {placements}: only rows over one dimension of a mesh")
    return tensor.device_mesh.get_group(split[0])  # type: ignore[attr-defined]  # a DTensor
