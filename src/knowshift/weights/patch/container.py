"""The patch file: packed blocks one after the other, then what they are, then how to find that.

    8 bytes     magic and format number
    ...         the packed blocks (see ``codec``) of every changed tensor, in order, back to back
    ...         index: for each block of those tensors, how many elements differ and how many bytes it takes,
                two little-endian uint32, all in one zstd frame
    ...         manifest: JSON in one zstd frame, see ``Manifest``
    8, 8 bytes  how long the index and the manifest are in the file, little-endian
    32 bytes    SHA-256 of index and manifest as they are in the file
    8 bytes     magic again

What is known last stands last, so a patch is written in one go. Nothing in it is taken on trust: lengths are checked
against the file and against limits before memory is asked for, and the blocks against the digests of both models.
"""

import hashlib
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from knowshift import __version__
from knowshift.errors import InputError
from knowshift.weights.bits import Bits
from knowshift.weights.blob import Blob
from knowshift.weights.header import TYPE_BITS
from knowshift.weights.patch.codec import Places, decode
from knowshift.weights.strict import quoted

MAGIC = b"KSPATCH1"
MAX_BLOCK = 1 << 22  # elements
MAX_PART = 1 << 26  # bytes of the index or the manifest, expanded
MAX_BLOCKS = MAX_PART // 8  # a trillion weights

_TAIL = 8 + 8 + 32 + len(MAGIC)
_INDEX = np.dtype("<u4")

Size = Annotated[int, Field(ge=0, lt=1 << 63)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Entry(_Strict):
    """One tensor of the tuned checkpoint.

    Attributes:
        name, dtype, shape: as stored.
        changed: how many of its elements the patch changes.
        tuned, restored: the digest of its content on either side, see ``contents``.
    """

    name: str
    dtype: str
    shape: Annotated[tuple[Size, ...], Field(max_length=16)]
    changed: Size
    tuned: Digest
    restored: Digest

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @model_validator(mode="after")
    def _consistent(self) -> "Entry":
        if self.dtype not in TYPE_BITS or (self.changed and TYPE_BITS[self.dtype] < 8):
            raise ValueError(f"tensor {quoted(self.name)} has the type {quoted(self.dtype)}")
        if self.size >= 1 << 63 or self.changed > self.size:
            raise ValueError(f"tensor {quoted(self.name)} changes {self.changed} of {self.size} elements")
        if not self.changed and self.tuned != self.restored:
            raise ValueError(f"tensor {quoted(self.name)} is unchanged and has two digests")
        return self


class Origin(_Strict):
    """Where a patch comes from.

    Attributes:
        base, tuned: the two models, as the user named them.
        settings: what was restored, by name, for people to read.
        command: the command line that made it.
        card: the model card of the restored checkpoint.
    """

    base: str
    tuned: str
    settings: dict[str, str | int | float | None]
    command: tuple[str, ...]
    card: str


class Manifest(_Strict):
    """What a patch is.

    Attributes:
        origin: where it comes from.
        written_by: the version of this software.
        block: elements of a block; the last of a tensor may have fewer.
        tensors: all of the tuned checkpoint's, changed or not; those changed in the order of their blocks.
    """

    origin: Origin
    written_by: str
    block: Annotated[int, Field(ge=1, le=MAX_BLOCK)]
    tensors: tuple[Entry, ...]

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        if len({entry.name for entry in self.tensors}) < len(self.tensors):
            raise ValueError("a tensor is named twice")
        if sum(self.blocks(entry) for entry in self.changed) > MAX_BLOCKS:
            raise ValueError(f"more than {MAX_BLOCKS} blocks")
        return self

    @property
    def changed(self) -> list[Entry]:
        """The tensors that the patch changes."""
        return [entry for entry in self.tensors if entry.changed]

    def blocks(self, entry: Entry) -> int:
        """How many blocks a tensor has."""
        return -(-entry.size // self.block)


class Patch:
    """A patch file opened for reading.

    Attributes:
        path: of the file.
        bytes: its size.
        manifest: what it is.
    """

    def __init__(self, path: Path) -> None:
        """Read and check everything but the blocks.

        Raises:
            InputError: naming the file and saying what is wrong with it.
        """
        self._blob = Blob(path)
        self.path = path
        self.bytes = self._blob.size
        self.manifest, index = _read(self._blob)
        manifest = self.manifest
        self._index = index
        self._offsets = list(accumulate((length for _, length in index), initial=len(MAGIC)))
        firsts = accumulate((manifest.blocks(entry) for entry in manifest.changed), initial=0)
        self._first = dict(zip((entry.name for entry in manifest.changed), firsts, strict=False))

    def differences(self, entry: Entry, number: int) -> tuple[Places, Bits]:
        """Places within block ``number`` of a changed tensor, and what to add there to get from tuned to restored.

        Raises:
            InputError: naming file and tensor if the block is damaged.
        """
        place = self._first[entry.name] + number
        count, length = self._index[place]
        size = min(self.manifest.block, entry.size - number * self.manifest.block)
        packed = self._blob.bytes(self._offsets[place], length)
        try:
            return decode(packed, count, size, TYPE_BITS[entry.dtype] // 8)
        except ValueError as error:
            name = quoted(entry.name)
            raise InputError(f"{self.path}: damaged: block {number} of tensor {name}: {error}") from error


class Writer:
    """A patch file being written; blocks in the order of the tensors that ``finish`` will list as changed."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._index: dict[str, list[tuple[int, int]]] = {}
        handle.write(MAGIC)

    def add(self, name: str, count: int, packed: bytes) -> None:
        """Append the next block of the tensor called ``name``."""
        self._index.setdefault(name, []).append((count, len(packed)))
        self._handle.write(packed)

    def changed(self, name: str) -> int:
        """How many elements differ in the blocks of a tensor so far."""
        return sum(count for count, _ in self._index.get(name, ()))

    def finish(self, origin: Origin, block: int, tensors: Sequence[Entry]) -> None:
        """Write what follows the blocks."""
        manifest = Manifest(origin=origin, written_by=__version__, block=block, tensors=tuple(tensors))
        pairs = [pair for entry in manifest.changed for pair in self._padded(entry, manifest)]
        compressor = zstandard.ZstdCompressor(level=9, write_checksum=True)
        index = compressor.compress(np.array(pairs, _INDEX).tobytes())
        text = compressor.compress(manifest.model_dump_json().encode("utf-8"))
        lengths = len(index).to_bytes(8, "little") + len(text).to_bytes(8, "little")
        self._handle.write(index + text + lengths + hashlib.sha256(index + text).digest() + MAGIC)

    def _padded(self, entry: Entry, manifest: Manifest) -> list[tuple[int, int]]:
        """A tensor of which only the first rows were compared has blocks after them, in which nothing differs."""
        own = self._index[entry.name]
        return own + [(0, 0)] * (manifest.blocks(entry) - len(own))


def _read(blob: Blob) -> tuple[Manifest, list[tuple[int, int]]]:
    path, size = blob.file, blob.size
    head = blob.bytes(0, min(len(MAGIC), size))
    if head[:-1] != MAGIC[:-1]:
        raise InputError(f"{path}: not a patch written by knowshift")
    if head != MAGIC:
        raise InputError(f"{path}: written in a format that this version of knowshift does not know: update it")
    tail = blob.bytes(size - _TAIL, _TAIL) if size >= len(MAGIC) + _TAIL else b""
    if not tail.endswith(MAGIC):
        raise InputError(f"{path}: truncated: the end of the patch is missing")
    lengths = int.from_bytes(tail[:8], "little"), int.from_bytes(tail[8:16], "little")
    start = size - _TAIL - sum(lengths)
    if start < len(MAGIC) or max(lengths) > MAX_PART:
        raise InputError(f"{path}: damaged: index and manifest of {lengths[0]} and {lengths[1]} bytes do not fit")
    packed = blob.bytes(start, sum(lengths))
    if hashlib.sha256(packed).digest() != tail[16:48]:
        raise InputError(f"{path}: damaged: index and manifest do not have the checksum they should have")
    try:
        manifest = Manifest.model_validate_json(_expanded(packed[lengths[0] :], MAX_PART))
        index = _index(packed[: lengths[0]], manifest)
    except ValidationError as error:
        raise InputError(f"{path}: damaged: {_first_of(error)}") from error
    except (ValueError, zstandard.ZstdError) as error:
        raise InputError(f"{path}: damaged: {error}") from error
    if sum(length for _, length in index) != start - len(MAGIC):
        raise InputError(f"{path}: damaged: its blocks do not take the bytes that the index says")
    return manifest, index


def _index(packed: bytes, manifest: Manifest) -> list[tuple[int, int]]:
    blocks = [manifest.blocks(entry) for entry in manifest.changed]
    wanted = 2 * sum(blocks) * _INDEX.itemsize
    raw = _expanded(packed, wanted)
    if len(raw) != wanted:
        raise ValueError(f"an index of {len(raw)} bytes where {wanted} belong")
    table = np.frombuffer(raw, _INDEX).reshape(-1, 2)
    for entry, end, own in zip(manifest.changed, accumulate(blocks), blocks, strict=True):
        if int(table[end - own : end, 0].sum(dtype=np.int64)) != entry.changed:
            raise ValueError(f"tensor {quoted(entry.name)}: the counts of its blocks do not add up to {entry.changed}")
    return [(int(count), int(length)) for count, length in table]


def _expanded(frame: bytes, most: int) -> bytes:
    claimed = zstandard.frame_content_size(frame)
    if not 0 <= claimed <= most:
        raise ValueError(f"a part of {claimed} bytes where at most {most} belong")
    content: bytes = zstandard.ZstdDecompressor().decompress(frame, max_output_size=claimed, allow_extra_data=False)
    return content


def _first_of(error: ValidationError) -> str:
    detail: Any = error.errors(include_url=False)[0]
    place = ".".join(map(str, detail["loc"]))
    return quoted(f"manifest{' at ' + place if place else ''}: {detail['msg']}", str)
