"""Masks with one bit for each element, unpacked one tensor at a time."""

import torch
from torch import Tensor
from torch.nn import functional


def packed(mask: Tensor) -> Tensor:
    """A bool tensor as uint8, eight elements a byte in row-major order, the first in the lowest bit."""
    flat = functional.pad(mask.reshape(-1).to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    return (flat << _places(mask)).sum(1, dtype=torch.uint8)


def unpacked(bits: Tensor, like: Tensor) -> Tensor:
    """The mask that was packed, of the shape and on the device of ``like``."""
    bits = bits.to(like.device)
    flat = (bits[:, None] >> _places(bits)) & 1
    return flat.view(-1)[: like.numel()].view(like.shape).bool()


def _places(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)
