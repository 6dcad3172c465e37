"""A loaded model read like a checkpoint: as the base of a pair, or as the tuned side that is to be changed in place.

While a tuned side is changed, the bits that were in the changed elements are kept, and reading goes on giving those:
of each tile the places, one bit an element, and the old bits of the elements that differ.
"""

import threading
from bisect import bisect_right, insort
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from knowshift.errors import InputError
from knowshift.weights import placing
from knowshift.weights.bits import Bits
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.header import TYPE_BITS, Tensor

_WHERE = Path("the loaded model")
_NAMES = {dtype: name for name, dtype in placing.TYPES.items()} | {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}


class Loaded(Checkpoint):
    """The tensors of a loaded model, under the names and in the order of its saved file.

    Raises:
        InputError: naming a tensor that is not in memory, or that transformers rearranged beyond following.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._views: dict[str, torch.Tensor] = {}
        tensors = {}
        # A saved file's tensors of one type lie in the order of their names.
        for name, view in sorted(placing.Places(model).stored.items()):
            if view is None:
                raise InputError(
                    f"{_WHERE}: transformers rearranged tensor {name!r} as it loaded it: give the checkpoint's folder"
                )
            dtype = _NAMES.get(view.dtype, "U8")
            size = view.numel() * TYPE_BITS[dtype] // 8
            tensors[name] = Tensor(name, dtype, tuple(view.shape), _WHERE, 0, size)
            self._views[name] = view
        super().__init__(_WHERE, tensors, {}, None)
        self._lock = threading.Lock()
        self._starts: dict[str, list[int]] = {}
        self._old: dict[tuple[str, int], tuple[int, npt.NDArray[np.uint8], Bits]] = {}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Bits:
        """Bits of elements ``start`` to ``stop``, in row-major order, as they were before any ``remember``."""
        stop = self.tensors[name].size if stop is None else stop
        # A copy at once: other threads change the model. What is remembered is so before it is changed; read first,
        # then look, and no change can be missed.
        bits = placing.read(self._views[name], start, stop).copy()
        with self._lock:
            starts = list(self._starts.get(name, ()))
        for place in starts[max(bisect_right(starts, start) - 1, 0) :]:
            if place >= stop:
                break
            size, packed, old = self._old[name, place]
            places = np.flatnonzero(np.unpackbits(packed, count=size)) + place
            inside = (places >= start) & (places < stop)
            bits[places[inside] - start] = old[inside]
        return bits

    def prefetch(self, name: str, start: int, stop: int) -> None:
        """Nothing: it is in memory."""

    def remember(self, name: str, start: int, old: Bits, new: Bits) -> None:
        """Keep what elements from ``start`` on are, before they become ``new``."""
        differ = old != new
        entry = (differ.size, np.packbits(differ), old[differ].copy())
        with self._lock:
            self._old[name, start] = entry
            insort(self._starts.setdefault(name, []), start)

    def forget(self) -> None:
        """Drop what was kept: the elements have their old bits again."""
        with self._lock:
            self._starts.clear()
            self._old.clear()
