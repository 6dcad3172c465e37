"""The header of a safetensors file, read and checked here so that nothing in it is taken on trust.

Knows one file's bytes and what they claim; not which tensors a model should have.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowshift.errors import InputError

# Bits per element of every type the format defines.
TYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip
MAX_HEADER = 100_000_000  # the format's own limit


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


def read_header(file: Path) -> list[Tensor]:
    """The tensors of a safetensors file in the order of their bytes.

    Raises:
        InputError: naming file and tensor if the header is not whole, consistent and within the file.
    """
    try:
        with file.open("rb") as handle:
            length_of_file = handle.seek(0, 2)
            handle.seek(0)
            prefix = handle.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > length_of_file - 8:
                raise InputError(f"{file}: truncated: the header is longer than the file")
            if length > MAX_HEADER:
                raise InputError(f"{file}: the header claims {length} bytes, the format allows {MAX_HEADER}")
            raw = handle.read(length)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    start = 8 + length
    tensors = [_tensor(file, name, entry, start) for name, entry in _entries(file, raw)]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.bytes))
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            fault = "overlaps the tensor before it" if tensor.offset < end else "leaves a gap before it"
            raise InputError(f"{file}: tensor {tensor.name!r} {fault}")
        end += tensor.bytes
        if end > length_of_file:
            raise InputError(f"{file}: truncated: tensor {tensor.name!r} ends beyond the end of the file")
    if end != length_of_file:
        raise InputError(f"{file}: {length_of_file - end} bytes after the last tensor belong to none")
    return tensors


def _entries(file: Path, raw: bytes) -> list[tuple[str, Any]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"{file}: the header holds {key!r} twice")
            found[key] = value
        return found

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: the header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise InputError(f"{file}: the header is not a JSON object")
    return [(name, entry) for name, entry in header.items() if name != "__metadata__"]


def _tensor(file: Path, name: str, entry: Any, start: int) -> Tensor:
    place = f"{file}: tensor {name!r}"
    if not isinstance(entry, dict):
        raise InputError(f"{place}: its header entry is not a JSON object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in TYPE_BITS:
        raise InputError(f"{place}: unknown dtype {dtype!r}")
    if not isinstance(shape, list) or not all(_natural(size) for size in shape):
        raise InputError(f"{place}: its shape is not a list of sizes: {shape!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_natural(place) for place in offsets):
        raise InputError(f"{place}: its data_offsets are not two positions: {offsets!r}")
    begin, end = offsets
    bits = math.prod(shape) * TYPE_BITS[dtype]
    if (end - begin) * 8 != bits:
        raise InputError(
            f"{place}: data_offsets span {end - begin} bytes, but {dtype} of shape {shape} takes {bits / 8:g}"
        )
    return Tensor(name, dtype, tuple(shape), file, start + begin, end - begin)


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
