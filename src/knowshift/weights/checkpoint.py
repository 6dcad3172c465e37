"""A checkpoint folder opened for reading: its tensors in order, their stored bits on demand.

Knows safetensors files, single or sharded. Knows nothing of models: which tensors are weights of what, or
whether two checkpoints belong together. Files are read by position, never loaded whole and never executed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from knowshift.errors import InputError
from knowshift.weights.blob import Blob
from knowshift.weights.header import TYPE_BITS, Tensor, read_header
from knowshift.weights.strict import LIMIT, quoted, strict_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FLOATS = ("BF16", "F16", "F32")  # the types that can be ranked and rewritten

_WORDS: dict[int, np.dtype[Any]] = {bits: np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)}


class Checkpoint:
    """One model's safetensors files.

    Attributes:
        folder: the checkpoint folder.
        tensors: every tensor by name, in the index's order, or for a single file in the order of its bytes.
        files: the safetensors files, in order of first use.
        index: the index file of a sharded checkpoint, else None.
    """

    def __init__(self, folder: Path, tensors: dict[str, Tensor], blobs: dict[Path, Blob], index: Path | None) -> None:
        self.folder = folder
        self.tensors = tensors
        self.index = index
        self.files = list(dict.fromkeys(tensor.file for tensor in tensors.values()))
        self._blobs = blobs

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Read and check the headers of ``folder``'s safetensors files.

        Only files that the folder lists are opened; where one is a symbolic link, it is followed.

        Raises:
            InputError: naming the file and tensor that is missing, malformed or points out of the folder.
        """
        try:
            listed = {path.name for path in folder.iterdir()}
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{folder}: no such folder") from error
        except OSError as error:
            raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
        if SINGLE in listed:
            blob = Blob(folder / SINGLE)
            return cls(folder, {tensor.name: tensor for tensor in read_header(blob)}, {blob.file: blob}, None)
        if INDEX in listed:
            return cls(folder, *_sharded(folder, listed), folder / INDEX)
        raise InputError(f"{folder}: {_what_instead(listed)}")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Stored bits of elements ``start`` to ``stop`` of a tensor, in row-major order.

        Returns:
            A new read-only array, one-dimensional: uint16 for ``BF16`` and ``F16``, uint32 for ``F32``, and so on
            by width.

        Raises:
            InputError: naming the file if it became shorter or cannot be read any more.
        """
        tensor = self.tensors[name]
        word = _WORDS.get(TYPE_BITS[tensor.dtype])
        if word is None:
            raise InputError(f"{tensor.file}: tensor {quoted(name)}: {tensor.dtype} packs elements within bytes")
        stop = tensor.size if stop is None else stop
        if not 0 <= start <= stop <= tensor.size:
            raise IndexError(f"{name}: [{start}, {stop}) of {tensor.size}")
        return self._blobs[tensor.file].words(tensor.offset + start * word.itemsize, stop - start, word)

    def prefetch(self, name: str, start: int, stop: int) -> None:
        """Ask the system to have elements ``start`` to ``stop`` in memory soon."""
        tensor = self.tensors[name]
        width = TYPE_BITS[tensor.dtype] // 8
        count = (min(stop, tensor.size) - start) * width
        self._blobs[tensor.file].prefetch(tensor.offset + start * width, count)


def _sharded(folder: Path, listed: set[str]) -> tuple[dict[str, Tensor], dict[Path, Blob]]:
    index = folder / INDEX
    blob = Blob(index)
    if blob.size > LIMIT:
        raise InputError(f"{index}: {blob.size} bytes are no index")
    content = strict_json(blob.bytes(0, blob.size), f"{index}: the index")
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise InputError(f'{index}: "weight_map" is missing or empty')
    found: dict[str, Tensor] = {}
    blobs: dict[Path, Blob] = {}
    for shard in dict.fromkeys(_shard_name(index, name, shard) for name, shard in places.items()):
        if shard not in listed:
            raise InputError(f"{folder}: {quoted(shard)}: no such file, but {INDEX} names it")
        blob = blobs[folder / shard] = Blob(folder / shard)
        for tensor in read_header(blob):
            if tensor.name in found:
                raise InputError(f"{blob.file}: tensor {quoted(tensor.name)} stands in another shard already")
            if places.get(tensor.name) != shard:
                raise InputError(f"{blob.file}: tensor {quoted(tensor.name)} is not listed there by {INDEX}")
            found[tensor.name] = tensor
    for name, shard in places.items():
        if name not in found:
            raise InputError(f"{folder / shard}: tensor {quoted(name)} is missing, but {INDEX} lists it")
    return {name: found[name] for name in places}, blobs


def _shard_name(index: Path, tensor: str, shard: object) -> str:
    plain = isinstance(shard, str) and shard.endswith(".safetensors") and shard.isprintable()
    if not plain or set(str(shard)) & set("/\\:"):
        raise InputError(f"{index}: tensor {quoted(tensor)}: {quoted(shard)} is not the name of a shard in this folder")
    return str(shard)


def _what_instead(listed: set[str]) -> str:
    pickles = sorted(name for name in listed if name.endswith(PICKLES))
    if "adapter_config.json" in listed:
        return "this is a PEFT adapter: merge it onto its base model first"
    if pickles:
        return (
            f"no {SINGLE}, only {pickles[0]}, a pickle file, which is never read: where you trust it, convert "
            "it with AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
        )
    return f"no {SINGLE} or {INDEX} in this folder"
