"""The base's weights while a model is trained: by parameter, as stored, read from the base's own files.

Knows parameters and where their stored values lie; not what is done with either. On the CPU nothing is held: a
tensor is read each time it is asked for, from the system's file cache, and is then the only one in memory. On an
accelerator what was asked for once stays there, in the stored type (2 bytes a weight for bfloat16, divided among
the processes as the model is).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, cast

from torch import Tensor
from torch.nn import Module, Parameter

from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.matching import match
from knowshift.weights.placing import TYPES, Places, place_of, values_of
from knowshift.weights.regions import unwrapped


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stored tensor as it lies in a parameter's memory: transformers stacks, joins and turns some while loading."""

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class Origin:
    """What every parameter was before training.

    Args:
        model: the base as it was just loaded, whole and not wrapped by anything yet. It is not kept.
        base: the checkpoint it was loaded from.

    Raises:
        InputError: if a tensor of ``model`` is not in this process's memory as a whole.
    """

    def __init__(self, model: Module, base: Checkpoint) -> None:
        self._base = base
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._pieces: dict[str, list[_Piece]] = {}
        self._computed: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        places = Places(model)
        pieces = _pieces(places, base)
        parameters = {place_of(parameter) for parameter in model.parameters()}
        for name, tensor in places.own.items():
            if not tensor.numel() or place_of(tensor) not in parameters:
                continue
            self._shapes[name] = tuple(tensor.shape)
            self._pieces[name] = pieces.get(places.first[place_of(tensor)], [])
            if sum(prod(piece.shape) for piece in self._pieces[name]) != tensor.numel():
                # What was computed while loading, such as a scaled weight, stands in no file.
                self._computed[name] = tensor.cpu().clone()
        # Wrappers put segments into a name; without any, it must still mean one parameter.
        counts = Counter(unwrapped(name) for name in self._shapes)
        self._bare = {unwrapped(name): name for name in self._shapes if counts[unwrapped(name)] == 1}

    def of(self, name: str, parameter: Tensor) -> Tensor:
        """Base values of this process's part of a parameter.

        Args:
            name: the parameter's in the model, however that was wrapped since.
            parameter: for its device and, as a ``DTensor``, its placement.

        Returns:
            A tensor of the shape and on the device of ``local(parameter)``, in the stored type. Only to be read.

        Raises:
            KeyError: if the base has no such parameter, as of an adapter's own.
            InputError: if the base's files became shorter meanwhile.
        """
        own = name if name in self._shapes else self._bare[unwrapped(name)]
        if own in self._kept:
            return self._kept[own]
        part = self._whole(own)
        if hasattr(parameter, "placements"):
            from torch.distributed.tensor import distribute_tensor

            # Every process reads the whole, so that none has to wait for another.
            like = cast(Any, parameter)
            part = distribute_tensor(part, like.device_mesh, like.placements, src_data_rank=None).to_local()
        part = part.to(local(parameter).device)
        if part.device.type != "cpu":
            # A part that is a view would keep the whole alive.
            self._kept[own] = part = part.clone() if part.untyped_storage().nbytes() > part.nbytes else part
        return part

    def _whole(self, name: str) -> Tensor:
        if name in self._computed:
            return self._computed[name]
        pieces, shape = self._pieces[name], self._shapes[name]
        whole: Tensor | None = None
        for piece in pieces:
            values = values_of(self._base.read(piece.name), self._base.tensors[piece.name].dtype).view(piece.shape)
            if len(pieces) == 1 and values.stride() == piece.stride:
                return values.view(shape)
            if whole is None:
                whole = values.new_empty(shape)
            whole.as_strided(piece.shape, piece.stride, piece.offset).copy_(values)
        assert whole is not None
        return whole


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor: all of it, unless it is a ``DTensor``. Shares its memory, has no gradient."""
    part = tensor.detach()
    return cast(Tensor, part.to_local()) if hasattr(part, "to_local") else part


def trained(model: Module) -> Iterator[tuple[str, Parameter]]:
    """The parameters that are trained, each once, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _pieces(places: Places, base: Checkpoint) -> dict[str, list[_Piece]]:
    """The stored tensors that make up each parameter, by the first of its names."""
    owners = {tensor.untyped_storage().data_ptr(): name for name, tensor in places.own.items()}
    partners = match(base.tensors, places.stored).partner
    found: dict[str, list[_Piece]] = {}
    for name, view in places.stored.items():
        if view is None or name not in partners:
            continue
        stored = base.tensors[partners[name]]
        owner = places.own[owners[view.untyped_storage().data_ptr()]]
        if stored.shape != tuple(view.shape) or stored.dtype not in TYPES or not owner.is_contiguous():
            continue
        offset = int(view.storage_offset() - owner.storage_offset())
        piece = _Piece(stored.name, stored.shape, view.stride(), offset)
        found.setdefault(places.first[place_of(owner)], []).append(piece)
    return found
