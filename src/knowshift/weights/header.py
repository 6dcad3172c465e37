"""The header of a safetensors file, read and checked here so that nothing in it is taken on trust.

Knows one file's bytes and what they claim; not which tensors a model should have.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowshift.errors import InputError
from knowshift.weights.blob import Blob
from knowshift.weights.strict import LIMIT, quoted, strict_json

# Bits per element of every type the format defines.
TYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor's bytes lie.

    Attributes:
        name: as in the file.
        dtype: the format's name of the element type, such as ``BF16``.
        shape: as stored; ``()`` is one element.
        file: the safetensors file.
        offset: first byte in the file.
        bytes: how many.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    bytes: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_header(blob: Blob) -> list[Tensor]:
    """The tensors of a safetensors file in the order of their bytes.

    Raises:
        InputError: naming file and tensor if the header is not whole, consistent and within the file.
    """
    file = blob.file
    length = int.from_bytes(blob.bytes(0, min(8, blob.size)), "little")
    start = 8 + length
    if blob.size < 8 or start > blob.size:
        raise InputError(f"{file}: truncated: the header is longer than the file")
    if length > LIMIT:
        raise InputError(f"{file}: the header claims {length} bytes, the format allows {LIMIT}")
    header = strict_json(blob.bytes(8, length), f"{file}: the header")
    if not isinstance(header, dict):
        raise InputError(f"{file}: the header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(f"{file}: the header's __metadata__ is not an object of texts")
    tensors = [_tensor(file, name, entry, start) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.bytes))
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            fault = "overlaps the tensor before it" if tensor.offset < end else "leaves a gap before it"
            raise InputError(f"{file}: tensor {quoted(tensor.name)} {fault}")
        end += tensor.bytes
        if end > blob.size:
            raise InputError(f"{file}: truncated: tensor {quoted(tensor.name)} ends beyond the end of the file")
    if end != blob.size:
        raise InputError(f"{file}: {blob.size - end} bytes after the last tensor belong to none")
    return tensors


def _tensor(file: Path, name: str, entry: Any, start: int) -> Tensor:
    place = f"{file}: tensor {quoted(name)}"
    if not isinstance(entry, dict):
        raise InputError(f"{place}: its header entry is not a JSON object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in TYPE_BITS:
        raise InputError(f"{place}: unknown dtype {quoted(dtype)}")
    if not isinstance(shape, list) or not all(_natural(size) for size in shape):
        raise InputError(f"{place}: its shape is not a list of sizes: {quoted(shape)}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_natural(offset) for offset in offsets):
        raise InputError(f"{place}: its data_offsets are not two positions: {quoted(offsets)}")
    begin, end = offsets
    elements = 1
    for size in shape:
        elements *= size
        # Stop here: the product of millions of large sizes would take for ever, and no file holds this many.
        if elements >= 1 << 63:
            raise InputError(f"{place}: its shape has too many elements: {quoted(shape)}")
    bits = elements * TYPE_BITS[dtype]
    if (end - begin) * 8 != bits:
        raise InputError(
            f"{place}: data_offsets span {end - begin} bytes, but {dtype} of shape {quoted(shape)} takes {bits / 8:g}"
        )
    return Tensor(name, dtype, tuple(shape), file, start + begin, end - begin)


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
