"""How far the weights have moved: ``||W - W0|| / ||W0||`` over all weights of a model.

Full tuning: on a sample, every k-th weight of all of them laid end to end, k such that about two million are looked
at: a copy of the base costs too much memory. Each row of a matrix has its part in it, so that an embedding of which
training touches some rows is not missed. Small models are looked at whole. LoRA: exact, from the adapter's matrices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

SAMPLE = 1 << 21
# Beginnings of LoRA, by PEFT's names, that take part of the weights beneath into the adapter, or round them.
_MOVING = ("pissa", "olora", "corda", "lora_ga", "loftq")


class WeightSample:
    """Some weights of a model as they were, and how far they have moved since.

    Under FSDP every process samples its own shards and what they find is added up.
    """

    def __init__(self, model: torch.nn.Module, sample: int = SAMPLE) -> None:
        total = sum(tensor.numel() for tensor in _parts(model))
        self.stride = _prime(-(-total // sample))
        self.base = [taken.clone() for taken in self._taken(model)]

    def change(self, model: torch.nn.Module) -> float | None:
        """``||W - W0|| / ||W0||``; None where this process cannot see the weights."""
        if not sum(base.numel() for base in self.base):
            return None
        pairs = list(zip(self._taken(model), self.base, strict=True))
        return _ratio([now - base for now, base in pairs], self.base)

    def _taken(self, model: torch.nn.Module) -> Iterable[torch.Tensor]:
        """Float32, from each parameter the weights whose place among all is a multiple of the stride."""
        place = 0
        for tensor in _parts(model):
            yield tensor.reshape(-1)[-place % self.stride :: self.stride].float()
            place += tensor.numel()


def moved_by(model: Any) -> str | None:
    """What an adapter began as, if that changed the weights beneath: without the adapter they are not the base."""
    for config in model.peft_config.values():
        began = getattr(config, "init_lora_weights", None)
        if isinstance(began, str) and began.lower().startswith(_MOVING):
            return began
    return None


def adapter_change(model: torch.nn.Module) -> float | None:
    """``||W - W0|| / ||W0||`` of LoRA's adapted weights over all weights of its base.

    None for adapters of another kind and on a base that is stored quantized.
    """
    from peft.tuners.lora.layer import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    moved: list[torch.Tensor] = []
    adapted: set[int] = set()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            weight = module.get_param() if hasattr(module, "get_param") else module.get_base_layer().weight
            if not weight.is_floating_point():
                return None
            moved.append(_lora_delta(module, weight).square().sum(dtype=torch.float64))
            adapted |= {id(tensor) for name, tensor in module.named_parameters() if not name.startswith("base_layer")}
        elif isinstance(module, BaseTunerLayer):
            return None
        elif isinstance(module, ModulesToSaveWrapper):
            for name in module.active_adapters:
                copies = module.modules_to_save[name].parameters()
                pairs = list(zip(copies, module.original_module.parameters(), strict=True))
                moved += [(now - base).float().square().sum(dtype=torch.float64) for now, base in pairs]
            adapted |= {id(tensor) for tensor in module.modules_to_save.parameters()}
    base = [tensor for tensor in model.parameters() if id(tensor) not in adapted]
    if not moved or not all(tensor.is_floating_point() for tensor in base):
        return None
    size = sum(_number(tensor.detach().float().square().sum(dtype=torch.float64)) for tensor in base)
    return float((sum(map(_number, moved)) / size) ** 0.5)


def _lora_delta(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """What the active adapters of a layer add to its weight; variants such as DoRA also scale it."""
    base = weight.detach()
    delta = torch.zeros_like(base, dtype=torch.float32)
    for name in layer.active_adapters:
        variant = getattr(layer, "lora_variant", {}).get(name)
        if variant is not None:
            delta += variant.merge_safe(layer, name, base.float()) - base.float()
        elif name in layer.scaling:
            delta += layer.get_delta_weight(name).detach()
    return delta


def _parts(model: torch.nn.Module) -> Iterable[torch.Tensor]:
    """The floating-point parameters, of a sharded one the part of this process."""
    for tensor in model.parameters():
        if tensor.is_floating_point():
            local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            yield local.detach()


def _ratio(moved: Iterable[torch.Tensor], base: Iterable[torch.Tensor]) -> float:
    sums = torch.stack(
        [
            torch.stack([tensor.square().sum(dtype=torch.float64) for tensor in tensors]).sum()
            for tensors in (moved, base)
        ]
    )
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums)  # replicas add up to the same ratio
    return float((sums[0] / sums[1]) ** 0.5)


def _number(value: Any) -> float:
    return float(value.full_tensor() if hasattr(value, "full_tensor") else value)


def _prime(least: int) -> int:
    """The smallest prime from ``least`` on, so that a stride shares no factor with a matrix's width; 1 stays 1."""
    while any(least % factor == 0 for factor in range(2, int(least**0.5) + 1)):
        least += 1
    return max(1, least)
