"""The base's final states while its weights are being trained: from a copy, or the model without its adapter.

Both compute as the trained model does, in the same types under the same autocast, so that before the first update
base and tuned agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from knowshift import models
from knowshift.train.heads import Body, Caught, Head, first_halves


class Copy:
    """A second model in memory, its weights as narrow as they are stored; each block is float32 while it runs.

    Memory: 2 bytes a weight of a bfloat16 checkpoint, whole in every process; for a moment one block or the embeddings
    in float32, and while it is loaded all of it, on the CPU.
    """

    def __init__(self, base: Path, device: torch.device) -> None:
        # Constants that a model computes as it is made must be those of the trained one.
        model = models.load_model(base, dtype="float32", device="cpu").requires_grad_(False)
        for parameter in model.parameters():
            parameter.data = _narrowest(parameter.data)
        self._model: Any = model.to(device)
        for module, recurse in _units(self._model):
            _widened(module, recurse)
        self.head = Head(self._model)

    @torch.no_grad()
    def states(self, model: nn.Module, inputs: dict[str, Any], like: Caught) -> Tensor:
        """(batch, tokens, hidden) states of what the model was given."""
        with torch.autocast(like.states.device.type, dtype=like.autocast, enabled=like.autocast is not None):
            states: Tensor = first_halves(self._model)[0](**inputs, use_cache=False).last_hidden_state
        return states


class WithoutAdapter:
    """The trained model with its adapter switched off. No memory."""

    def __init__(self, model: nn.Module, body: Body) -> None:
        self._body = body
        self.head = Head(body.whole)

    @torch.no_grad()
    def states(self, model: nn.Module, inputs: dict[str, Any], like: Caught) -> Tensor:
        """(batch, tokens, hidden) states of what the model was given."""
        adapted: Any = model
        while not hasattr(adapted, "disable_adapter"):
            adapted = adapted.module
        training = model.training
        model.eval()
        try:
            with adapted.disable_adapter():
                return self._body.read(model, inputs).states
        finally:
            model.train(training)


def _narrowest(values: Tensor) -> Tensor:
    """The same numbers in two bytes each, if two bytes can hold them."""
    for dtype in (torch.bfloat16, torch.float16):
        narrow = values.to(dtype)
        if torch.equal(narrow.to(values.dtype), values):
            return narrow
    return values


def _units(model: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """What is made float32 together: each block whole, and of every module outside of them its own parameters."""
    covered: set[nn.Module] = set()
    for part in model.modules():
        for block in part if isinstance(part, nn.ModuleList) else ():
            if block not in covered:
                covered.update(block.modules())
                yield block, True
    for part in model.modules():
        if part not in covered and next(part.parameters(recurse=False), None) is not None:
            yield part, False


def _widened(module: nn.Module, recurse: bool) -> None:
    """Have ``module``'s parameters be float32 while it runs, and as they are stored otherwise."""
    stored: list[tuple[nn.Parameter, Tensor]] = []

    def widen(*_: Any) -> None:
        for parameter in module.parameters(recurse):
            stored.append((parameter, parameter.data))
            parameter.data = parameter.data.float()

    def narrow(*_: Any) -> None:
        while stored:
            parameter, data = stored.pop()
            parameter.data = data

    module.register_forward_pre_hook(widen)
    module.register_forward_hook(narrow, always_call=True)
