"""The patch file: packed blocks one after the other, then what they are, then how to find that.

    8 bytes     magic and format number
    ...         the packed blocks (see ``codec``) of every changed tensor, in order, back to back
    ...         index: for each block of those tensors, how many elements differ and how many bytes it takes,
                two little-endian uint32, all in one zstd frame
    ...         manifest: JSON in one zstd frame, see ``manifest``
    8, 8 bytes  how long the index and the manifest are in the file, little-endian
    32 bytes    SHA-256 of index and manifest as they are in the file
    8 bytes     magic again

What is known last stands last, so a patch is written in one go. Nothing in it is taken on trust: lengths are checked
against the file and against limits before memory is asked for, and the blocks against the digests of both models.
"""

import hashlib
from array import array
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import zstandard
from pydantic import ValidationError

from knowshift import __version__
from knowshift.errors import InputError
from knowshift.weights.bits import Bits
from knowshift.weights.blob import Blob
from knowshift.weights.header import TYPE_BITS
from knowshift.weights.patch.codec import Places, decode
from knowshift.weights.patch.manifest import Entry, Manifest, Origin
from knowshift.weights.strict import quoted

MAGIC = b"KSPATCH1"
MAX_PART = 1 << 27  # bytes of the index or the manifest, expanded

_TAIL = 8 + 8 + 32 + len(MAGIC)
_INDEX = np.dtype("<u4")

Table = npt.NDArray[np.uint32]  # (blocks, 2): how many elements differ, how many bytes


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
        self.manifest, self._index = _read(self._blob)
        self._ends = len(MAGIC) + np.cumsum(self._index[:, 1], dtype=np.int64)
        changed = self.manifest.changed
        firsts = accumulate((self.manifest.blocks(entry) for entry in changed), initial=0)
        self._first = dict(zip((entry.name for entry in changed), firsts, strict=False))

    def differences(self, entry: Entry, number: int) -> tuple[Places, Bits]:
        """Places within block ``number`` of a changed tensor, and what to add there to get from tuned to restored.

        Raises:
            InputError: naming file and tensor if the block is damaged.
        """
        place = self._first[entry.name] + number
        count, length = map(int, self._index[place])
        size = min(self.manifest.block, entry.size - number * self.manifest.block)
        packed = self._blob.bytes(int(self._ends[place]) - length, length)
        try:
            return decode(packed, count, size, TYPE_BITS[entry.dtype] // 8)
        except ValueError as error:
            name = quoted(entry.name)
            raise InputError(f"{self.path}: damaged: block {number} of tensor {name}: {error}") from error


class Writer:
    """A patch file being written; blocks in the order of the tensors that ``finish`` will list as changed."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._index: dict[str, array[int]] = {}  # counts and lengths in turn
        handle.write(MAGIC)

    def add(self, name: str, count: int, packed: bytes) -> None:
        """Append the next block of the tensor called ``name``."""
        self._index.setdefault(name, array("I")).extend((count, len(packed)))
        self._handle.write(packed)

    def changed(self, name: str) -> int:
        """How many elements differ in the blocks of a tensor so far."""
        return sum(self._index.get(name, array("I"))[::2])

    def finish(self, origin: Origin, block: int, tensors: Sequence[Entry]) -> None:
        """Write what follows the blocks."""
        manifest = Manifest(origin=origin, written_by=__version__, block=block, tensors=tuple(tensors))
        compressor = zstandard.ZstdCompressor(level=9, write_checksum=True)
        index = compressor.compress(b"".join(self._table(entry, manifest) for entry in manifest.changed))
        text = compressor.compress(manifest.model_dump_json().encode("utf-8"))
        lengths = len(index).to_bytes(8, "little") + len(text).to_bytes(8, "little")
        self._handle.write(index + text + lengths + hashlib.sha256(index + text).digest() + MAGIC)

    def _table(self, entry: Entry, manifest: Manifest) -> bytes:
        """A tensor's part of the index.

        Where only the first rows were compared, blocks come after those written, and in them nothing differs.
        """
        table = np.zeros(2 * manifest.blocks(entry), _INDEX)
        own = self._index[entry.name]
        table[: len(own)] = own
        return table.tobytes()


def _read(blob: Blob) -> tuple[Manifest, Table]:
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
    if int(index[:, 1].sum(dtype=np.int64)) != start - len(MAGIC):
        raise InputError(f"{path}: damaged: its blocks do not take the bytes that the index says")
    return manifest, index


def _index(packed: bytes, manifest: Manifest) -> Table:
    blocks = [manifest.blocks(entry) for entry in manifest.changed]
    wanted = 2 * sum(blocks) * _INDEX.itemsize
    raw = _expanded(packed, wanted)
    if len(raw) != wanted:
        raise ValueError(f"an index of {len(raw)} bytes where {wanted} belong")
    table = np.frombuffer(raw, _INDEX).reshape(-1, 2)
    for entry, end, own in zip(manifest.changed, accumulate(blocks), blocks, strict=True):
        if int(table[end - own : end, 0].sum(dtype=np.int64)) != entry.changed:
            raise ValueError(f"tensor {quoted(entry.name)}: the counts of its blocks do not add up to {entry.changed}")
    return table


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
