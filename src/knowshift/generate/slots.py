"""Keys and values of many continuations, each in its own slot of buffers that are made once.

transformers' own cache joins a new tensor at every step and copies every row whenever one is added or dropped. Here
a step writes its one new position in place, and only rows that really change place are copied. Prompts of different
lengths end at the same position, so that all rows write to one column; what lies before a shorter prompt is masked.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class SlotLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values: buffers of shape (slots, heads, positions, head size), filled from the left."""

    def __init__(self, slots: int, positions: int, filled: int, *, sliding: bool) -> None:
        super().__init__()
        self.is_sliding = sliding
        self.slots, self.positions, self.length = slots, positions, filled
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def fill(self, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put what was computed for some prompts into the slots from ``start`` on, ending at the filled length."""
        if self._buffers is None:
            self._buffers = (self._buffer(keys), self._buffer(values))
            self.is_initialized = True
        rows = slice(start, start + keys.shape[0])
        for buffer, states in zip(self._buffers, (keys, values), strict=True):
            first = self.length - states.shape[2]
            buffer[rows, :, :first] = 0  # masked, but whatever lay here must not be infinite
            buffer[rows, :, first : self.length] = states

    def _buffer(self, states: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = states.shape
        return torch.empty(self.slots, heads, self.positions, size, dtype=states.dtype, device=states.device)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new position of every row; the states of all positions."""
        assert self._buffers is not None
        rows, start, stop = key_states.shape[0], self.length, self.length + key_states.shape[2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, start:stop] = states
        self.length = stop
        self.keys, self.values = (buffer[:rows, :, :stop] for buffer in self._buffers)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Positions filled so far."""
        return self.length

    def move(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy slots ``sources`` to slots ``targets``, all read before any is written."""
        for buffer in self._buffers or ():  # which may be on another device than the next layer's
            taken, placed = sources.to(buffer.device), targets.to(buffer.device)
            buffer[placed, :, : self.length] = buffer[taken, :, : self.length]


class Slots:
    """The cache of one batch, and how its rows come and go."""

    def __init__(self, groups: Sequence[Any], slots: int, filled: int, positions: int) -> None:
        """Join the caches of prompts that were read group by group, in the order of their slots."""
        self.cache = groups[0]
        if not can_be_slots(self.cache, filled):
            assert len(groups) == 1
            return
        self.cache = DynamicCache()
        self.cache.layers = [
            SlotLayer(slots, positions, filled, sliding=layer.is_sliding) for layer in groups[0].layers
        ]
        start = 0
        for group in groups:
            rows = 0
            for target, layer in zip(self.cache.layers, group.layers, strict=True):
                if layer.is_initialized:  # a layer that shares another's states has none
                    target.fill(start, layer.keys, layer.values)
                    rows = layer.keys.shape[0]
            start += rows

    def select(self, parents: Sequence[int], device: torch.device) -> None:
        """Let row i go on from what was row ``parents[i]``; rows beyond are dropped."""
        layers = self.cache.layers
        if layers and isinstance(layers[0], SlotLayer):
            moved = [row for row, parent in enumerate(parents) if parent != row]
            if moved:
                targets = torch.tensor(moved, device=device)
                sources = torch.tensor([parents[row] for row in moved], device=device)
                for layer in layers:
                    layer.move(sources, targets)
        else:
            self.cache.batch_select_indices(torch.tensor(parents, device=device))


def gathered(caches: Sequence[Any], places: torch.Tensor, start: int, config: Any) -> DynamicCache:
    """A cache of rows whose states lie in several caches of one row each, at ``places``, (rows, positions).

    Numbers count through the first cache, then through each further one from ``start`` on: what lies before is the same
    in all.
    """
    joined = DynamicCache(config=config)
    for target, *layers in zip(joined.layers, *(cache.layers for cache in caches), strict=True):
        if layers[0].is_initialized:  # a layer that shares another's states has none
            at = places.to(layers[0].keys.device)
            target.keys, target.values = (
                lay_out(torch.cat([states[0], *(more[:, :, start:] for more in states[1:])], dim=2), at)
                for states in zip(*((layer.keys, layer.values) for layer in layers), strict=True)
            )
            target.is_initialized = True
    return joined


def plain_cache(config: Any, common: Any = None) -> DynamicCache:
    """A cache that forgets nothing, and begins with the states of ``common``."""
    cache = DynamicCache(config=config)
    cache.layers = [DynamicLayer() for _ in cache.layers]
    for number, layer in enumerate(common.layers if common is not None else ()):
        if layer.is_initialized:
            cache.update(layer.keys, layer.values, number)
    return cache


def lay_out(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """States (1, heads, tokens, size) by ``places`` (rows, width): (rows, heads, width, size)."""
    rows, width = places.shape
    laid = states[0].index_select(1, places.flatten())
    return laid.view(states.shape[1], rows, width, -1).transpose(0, 1)


def repeated(cache: Any, rows: int, config: Any) -> DynamicCache:
    """A cache of ``rows`` that all begin as the one row of ``cache`` does; its layers keep plain keys and values."""
    wider = DynamicCache(config=config)
    for number, layer in enumerate(cache.layers):
        if layer.is_initialized:  # a layer that shares another's states has none
            wider.update(*(states.expand(rows, -1, -1, -1) for states in (layer.keys, layer.values)), number)
    return wider


def can_be_slots(cache: Any, positions: int) -> bool:
    """Whether every layer of a cache keeps plain keys and values of all ``positions``."""
    return all(
        type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and positions < layer.sliding_window)
        for layer in getattr(cache, "layers", ())
    )
