"""Slow twins: the same definitions written plainly in torch, whole tensors in memory, sorted."""

import json
from fractions import Fraction
from pathlib import Path

import torch
from safetensors.torch import load_file

BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def load(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, in the order of its index, or of its bytes for a single file."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        places = json.loads(index.read_text())["weight_map"]
        shards = {shard: load_file(folder / shard) for shard in set(places.values())}
        return {name: shards[shard][name] for name, shard in places.items()}
    raw = (folder / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    header.pop("__metadata__", None)
    tensors = load_file(folder / "model.safetensors")
    return {name: tensors[name] for name in sorted(header, key=lambda name: header[name]["data_offsets"])}


def is_block_matrix(name: str) -> bool:
    """Inside a transformer block and no norm."""
    return (".layers." in name or ".h." in name) and "norm" not in name and ".ln_" not in name


def score(base: torch.Tensor, tuned: torch.Tensor, rank: str, arithmetic: str) -> torch.Tensor:
    """The change score as torch computes it in that type."""
    wanted = torch.bfloat16 if arithmetic == "bfloat16" else torch.float32
    base, tuned = base.to(wanted), tuned.to(wanted)
    if rank == "relative":
        return (tuned - base).abs() / (base.abs() + 1e-8)
    return (tuned - base).abs() if rank == "absolute" else -base.abs()


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def chosen(scores: torch.Tensor, count: int, order: str = "top") -> torch.Tensor:
    """A mask of the first ``count`` elements by score; equal scores keep their order."""
    places = torch.argsort(scores.double(), descending=order == "top", stable=True)[:count]
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    mask[places] = True
    return mask


def floor_of(size: int, fraction: float | str) -> int:
    return int(size * Fraction(str(fraction)))


def restored(
    base: Path, tuned: Path, fraction, *, rank="relative", order="top", arithmetic="float32", of="all"
) -> dict[str, torch.Tensor]:
    """The weights of the tuned model with a fraction of its block matrices restored."""
    left, right = load(base), load(tuned)
    names = [name for name in right if is_block_matrix(name)]
    before = flat([left[name].to(right[name].dtype) for name in names])
    after = flat([right[name] for name in names])
    bits = BITS[after.dtype]
    scores = score(flat([left[name] for name in names]), after, rank, arithmetic)
    if of == "changed":
        changed = before.view(bits) != after.view(bits)
        mask = torch.zeros_like(changed)
        inner = chosen(scores[changed], floor_of(int(changed.sum()), fraction), order)
        mask[changed.nonzero().squeeze(1)[inner]] = True
    else:
        mask = chosen(scores, floor_of(scores.numel(), fraction), order)
    mixed = torch.where(mask, before.view(bits), after.view(bits)).view(after.dtype)
    parts = mixed.split([right[name].numel() for name in names])
    return {**right, **{name: part.view_as(right[name]) for name, part in zip(names, parts, strict=True)}}


def same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(value.view(BITS[value.dtype]), right[name].view(BITS[value.dtype])) for name, value in left.items()
    )
