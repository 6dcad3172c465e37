"""Where the tensors of a checkpoint lie in a loaded model: views of its own memory, under the names that files use.

transformers renames, stacks and concatenates some tensors as it loads them (experts, above all) and undoes that as it
saves. The undoing is asked here of views that refuse to be copied: what comes out and still lies in the model's memory
is where a stored tensor is. What was computed rather than moved cannot be followed, and is refused by name.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch

from knowshift.errors import InputError
from knowshift.weights.bits import Bits
from knowshift.weights.regions import unwrapped

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class _View(torch.Tensor):
    """A tensor that stays where it is when it is asked to become contiguous."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.contiguous:
            return args[0]
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


class Places:
    """The tensors of a loaded model.

    Attributes:
        own: by the names of its parameters and stored buffers, tied ones under each of their names.
        first: of each place, the first of its names.
        stored: by the names a saved file has, tied ones once; None where a tensor's place cannot be followed.

    Raises:
        InputError: if a tensor is not in this process's memory as a whole.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        while isinstance(inner := getattr(model, "_orig_mod", None), torch.nn.Module):  # compiled
            model = inner
        self.own: dict[str, torch.Tensor] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            if not isinstance(tensor, torch.Tensor):
                continue
            if tensor.is_meta:
                raise InputError(f"the loaded model: tensor {name!r} is offloaded: load the model without offloading")
            if hasattr(tensor, "full_tensor"):
                raise InputError(f"the loaded model: tensor {name!r} is sharded over processes, which is not supported")
            self.own[name] = tensor.detach()
        self.first: dict[tuple[object, ...], str] = {}
        for name, tensor in self.own.items():
            self.first.setdefault(place_of(tensor) if tensor.numel() else (name,), name)
        self.stored = self._stored(model)
        self._bare: dict[str, dict[tuple[object, ...], torch.Tensor]] = {}
        for name, view in (*self.own.items(), *self.stored.items()):
            if view is not None:
                self._bare.setdefault(unwrapped(name), {})[place_of(view)] = view

    def find(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """The place of the tensor that a file calls ``name``.

        Raises:
            InputError: if the model has none of that name and shape, or it cannot be followed.
        """
        candidates = [view for view in (self.own.get(name), self.stored.get(name)) if view is not None]
        bare = list(self._bare.get(unwrapped(name), {}).values())
        for view in candidates or (bare if len(bare) == 1 else []):
            if tuple(view.shape) == shape and view.dtype in TYPES.values():
                return view
        if name in self.stored and self.stored[name] is None:
            raise InputError(
                f"transformers rearranges tensor {name!r} as it loads it, so it cannot be changed in place: write a "
                "checkpoint (knowshift restore, merge) and load that"
            )
        raise InputError(f"the loaded model has no parameter {name!r} of shape {list(shape)} in {', '.join(TYPES)}")

    def _stored(self, model: torch.nn.Module) -> dict[str, torch.Tensor | None]:
        own = {name: self.own[name] for name in self.first.values()}
        if not hasattr(model, "config"):
            return dict(own)
        from transformers.core_model_loading import revert_weight_conversion

        memory = {tensor.untyped_storage().data_ptr() for tensor in own.values()}
        views = {name: tensor.as_subclass(_View) for name, tensor in own.items()}
        try:
            with torch.no_grad():
                found = revert_weight_conversion(cast(Any, model), cast(Any, views))
        except (AttributeError, KeyError, RuntimeError, ValueError):  # no model of transformers, or quantized
            return dict(own)
        return {
            name: view.as_subclass(torch.Tensor) if view.untyped_storage().data_ptr() in memory else None
            for name, view in found.items()
        }


def place_of(view: torch.Tensor) -> tuple[object, ...]:
    """What two tensors share if they are the same memory seen the same way."""
    return (view.device, view.data_ptr(), tuple(view.shape), view.stride())


def read(view: torch.Tensor, start: int, stop: int) -> Bits:
    """The bits of elements ``start`` to ``stop``, in row-major order."""
    parts = [part.reshape(-1).cpu() for part in _stretch(view, start, stop)]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts) if parts else view.new_empty(0).cpu()
    signed = torch.int32 if whole.dtype == torch.float32 else torch.int16
    words = whole.view(signed).numpy()
    return words.view(np.uint32 if words.itemsize == 4 else np.uint16)


def write(view: torch.Tensor, start: int, bits: Bits, dtype: str) -> None:
    """Put ``bits`` of type ``dtype`` from element ``start`` on, cast to the view's own type as loading would."""
    values = values_of(bits, dtype)
    # Allowed on ordinary tensors, and the only way on those that were loaded in this mode.
    with torch.inference_mode():
        for part in _stretch(view, start, start + values.numel()):
            part.copy_(values[: part.numel()].view(part.shape))
            values = values[part.numel() :]


def holds(view: torch.Tensor, start: int, bits: Bits, dtype: str) -> bool:
    """Whether the view has these bits from element ``start`` on, cast to its own type."""
    wanted = values_of(bits, dtype).to(view.dtype)
    return np.array_equal(read(view, start, start + bits.size), read(wanted, 0, bits.size))


def values_of(bits: Bits, dtype: str) -> torch.Tensor:
    """Stored bits as a tensor of their type."""
    signed = np.int32 if bits.itemsize == 4 else np.int16
    if not bits.flags.writeable or not bits.flags.aligned:
        bits = bits.copy()  # torch has no read-only tensors
    return torch.from_numpy(bits.view(signed)).view(TYPES[dtype])


def settle(views: Sequence[torch.Tensor]) -> None:
    """Wait until every device that holds one of ``views`` has done what was asked of it."""
    for device in dict.fromkeys(view.device for view in views if view.is_cuda):
        torch.cuda.synchronize(device)


def _stretch(view: torch.Tensor, start: int, stop: int) -> Iterator[torch.Tensor]:
    """Elements ``start`` to ``stop`` of a tensor that need not be contiguous, in parts, in row-major order."""
    if start >= stop:
        return
    if view.is_contiguous():
        yield view.view(-1)[start:stop]
        return
    if view.ndim == 1:
        yield view[start:stop]
        return
    row = view[0].numel()
    first, skipped = divmod(start, row)
    last, rest = divmod(stop, row)
    if skipped:
        yield from _stretch(view[first], skipped, min(row, stop - first * row))
        first += 1
    if first < last:
        yield view[first:last]
    if rest and first <= last:
        yield from _stretch(view[last], 0, rest)
