"""A checkpoint folder opened for reading: its tensors in order, their stored bits on demand.

Knows safetensors files, single or sharded. Knows nothing of models: which tensors are weights of what, or
whether two checkpoints belong together. Files are mapped, never loaded, and never executed.
"""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from knowshift.errors import InputError
from knowshift.files import read_json
from knowshift.weights.header import TYPE_BITS, Tensor, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
FLOATS = ("BF16", "F16", "F32")  # the types that can be ranked and rewritten

_WORDS: dict[int, np.dtype[Any]] = {bits: np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)}
_PAGE = mmap.ALLOCATIONGRANULARITY


class Checkpoint:
    """One model's safetensors files.

    Attributes:
        folder: the checkpoint folder.
        tensors: every tensor by name, in the index's order, or for a single file in the order of its bytes.
        files: the safetensors files, in order of first use.
        index: the index file of a sharded checkpoint, else None.
    """

    def __init__(self, folder: Path, tensors: dict[str, Tensor], index: Path | None) -> None:
        self.folder = folder
        self.tensors = tensors
        self.index = index
        self.files = list(dict.fromkeys(tensor.file for tensor in tensors.values()))
        self._maps: dict[Path, mmap.mmap] = {}

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Read and check the headers of ``folder``'s safetensors files.

        Raises:
            InputError: naming the file and tensor that is missing, malformed or points out of the folder.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        single, index = folder / SINGLE, folder / INDEX
        if single.is_file():
            return cls(folder, {tensor.name: tensor for tensor in read_header(single)}, None)
        if index.is_file():
            return cls(folder, _sharded(folder, index), index)
        raise InputError(f"{folder}: {_what_instead(folder)}")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Stored bits of elements ``start`` to ``stop`` of a tensor, in row-major order.

        Returns:
            A read-only view of the file, one-dimensional: uint16 for ``BF16`` and ``F16``, uint32 for
            ``F32``, and so on by width.
        """
        tensor = self.tensors[name]
        word = _WORDS.get(TYPE_BITS[tensor.dtype])
        if word is None:
            raise InputError(f"{tensor.file}: tensor {name!r}: {tensor.dtype} packs elements within bytes")
        stop = tensor.size if stop is None else stop
        if not 0 <= start <= stop <= tensor.size:
            raise IndexError(f"{name}: [{start}, {stop}) of {tensor.size}")
        offset = tensor.offset + start * word.itemsize
        return np.frombuffer(self._map(tensor.file), word, stop - start, offset)

    def prefetch(self, name: str, start: int, stop: int) -> None:
        """Ask the system to have elements ``start`` to ``stop`` in memory soon."""
        tensor = self.tensors[name]
        width = TYPE_BITS[tensor.dtype] // 8
        begin = (tensor.offset + start * width) // _PAGE * _PAGE
        end = tensor.offset + min(stop, tensor.size) * width
        if end > begin and hasattr(mmap, "MADV_WILLNEED"):
            self._map(tensor.file).madvise(mmap.MADV_WILLNEED, begin, end - begin)

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            try:
                with file.open("rb") as handle:
                    self._maps[file] = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                raise InputError(f"{file}: cannot be read: {error.strerror}") from error
        return self._maps[file]


def _sharded(folder: Path, index: Path) -> dict[str, Tensor]:
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise InputError(f'{index}: "weight_map" is missing or empty')
    found: dict[str, Tensor] = {}
    for shard in dict.fromkeys(_shard_name(index, name, shard) for name, shard in places.items()):
        if not (folder / shard).is_file():
            raise InputError(f"{folder / shard}: no such file, but {INDEX} names it")
        for tensor in read_header(folder / shard):
            if tensor.name in found:
                raise InputError(f"{tensor.file}: tensor {tensor.name!r} stands in another shard already")
            if places.get(tensor.name) != shard:
                raise InputError(f"{tensor.file}: tensor {tensor.name!r} is not listed there by {INDEX}")
            found[tensor.name] = tensor
    for name, shard in places.items():
        if name not in found:
            raise InputError(f"{folder / shard}: tensor {name!r} is missing, but {INDEX} lists it")
    return {name: found[name] for name in places}


def _shard_name(index: Path, tensor: str, shard: object) -> str:
    plain = isinstance(shard, str) and shard.endswith(".safetensors") and not set(shard) & set("/\\\0:")
    if not plain:
        raise InputError(f"{index}: tensor {tensor!r}: {shard!r} is not the name of a shard in this folder")
    return str(shard)


def _what_instead(folder: Path) -> str:
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if (folder / "adapter_config.json").is_file():
        return "this is a PEFT adapter: merge it onto its base model first"
    if pickles:
        return (
            f"no {SINGLE}, only {pickles[0]}, a pickle file, which is never read: where you trust it, convert "
            "it with AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
        )
    return f"no {SINGLE} or {INDEX} in this folder"
