"""One block of weights before and after, packed as where they differ and by how much.

Knows arrays and bytes only. A difference is of the stored bits taken as integers, modulo their range, so adding it
turns before into after and subtracting it turns after into before, whatever the type. Training moves most weights by
few units in the last place: as integers such differences are small, which halves what they take.

A packed block is one byte for the kind of positions, then the positions, then the differences from their lowest byte
plane to the highest, each a zstd frame of its own (planes have nothing in common) behind its length in four bytes.
Positions are the gaps between neighbours, one byte each (255 stands for 255 elements passed over, and the gap goes
on), or a bitmap, whichever takes fewer bytes.
"""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from knowshift.weights.bits import Bits

Places = npt.NDArray[np.int64]

_GAPS, _BITMAP = 0, 1
_LONG = 255  # a gap byte that no element follows
_LENGTH = 4
_LEVEL = 1  # higher levels look for repetitions, which weights do not have: slower, and a little larger


class _Tools(threading.local):
    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self.decompressor = zstandard.ZstdDecompressor()


_tools = _Tools()


def encode(before: Bits, after: Bits) -> tuple[int, bytes]:
    """How many elements of two equally long blocks differ, and the packed differences (nothing where none do)."""
    places = np.flatnonzero(before != after)
    if not places.size:
        return 0, b""
    gaps = np.diff(places, prepend=-1) - 1
    if places.size + int((gaps // _LONG).sum()) < -(-before.size // 8):
        kind, where = _GAPS, _gap_bytes(gaps)
    else:
        marks = np.zeros(before.size, np.bool_)
        marks[places] = True
        kind, where = _BITMAP, np.packbits(marks, bitorder="little")
    steps = _folded(after[places] - before[places])
    planes = steps.astype(f"<u{steps.itemsize}", copy=False).view(np.uint8).reshape(-1, steps.itemsize).T
    packed = [bytes([kind])]
    for stream in (where, *planes):
        frame = _tools.compressor.compress(stream.tobytes())
        packed += [len(frame).to_bytes(_LENGTH, "little"), frame]
    return places.size, b"".join(packed)


def decode(packed: bytes, count: int, size: int, width: int) -> tuple[Places, Bits]:
    """The places of ``count`` differences in a block of ``size`` elements of ``width`` bytes, and the differences.

    Raises:
        ValueError: saying what is wrong, if ``packed`` is not what ``encode`` makes of such a block. No more memory
            is taken than such a block needs, whatever the bytes claim.
    """
    if not count:
        if packed:
            raise ValueError("bytes where nothing differs")
        return np.empty(0, np.int64), np.empty(0, f"u{width}")
    if count > size:
        raise ValueError(f"{count} differences in {size} elements")
    kind, at = packed[0] if packed else -1, 1
    if kind not in (_GAPS, _BITMAP):
        raise ValueError("unknown kind of positions")
    bitmap = -(-size // 8)
    bounds = [(bitmap, bitmap) if kind == _BITMAP else (count, count + size // _LONG), *[(count, count)] * width]
    streams = []
    for least, most in bounds:
        length = int.from_bytes(packed[at : at + _LENGTH], "little")
        at += _LENGTH + length
        if at > len(packed):
            raise ValueError("it ends too soon")
        streams.append(_expanded(packed[at - length : at], least, most))
    if at != len(packed):
        raise ValueError("more bytes than it needs")
    places = _from_bitmap(streams[0], size) if kind == _BITMAP else _from_gaps(streams[0])
    if places.size != count or places[-1] >= size:
        raise ValueError("positions that do not fit")
    planes = np.stack(streams[1:], axis=1)
    return places, _unfolded(planes.view(f"<u{width}")[:, 0].astype(f"u{width}", copy=False))


def _gap_bytes(gaps: Places) -> npt.NDArray[np.uint8]:
    long, rest = np.divmod(gaps, _LONG)
    out = np.full(gaps.size + int(long.sum()), _LONG, np.uint8)
    out[np.cumsum(long + 1) - 1] = rest
    return out


def _from_gaps(stream: npt.NDArray[np.uint8]) -> Places:
    ends = stream < _LONG
    if not ends[-1]:
        raise ValueError("positions that do not end")
    return np.cumsum(stream + ends, dtype=np.int64)[ends] - 1


def _from_bitmap(stream: npt.NDArray[np.uint8], size: int) -> Places:
    places = np.flatnonzero(np.unpackbits(stream, bitorder="little"))
    if not places.size or places[-1] >= size:
        raise ValueError("positions that do not fit")
    return places


def _folded(steps: Bits) -> Bits:
    """Small differences of either sign as small numbers: 0, -1, 1, -2 ... become 0, 1, 2, 3 ..."""
    signed = steps.view(f"i{steps.itemsize}")
    folded: npt.NDArray[Any] = (signed << 1) ^ (signed >> (8 * steps.itemsize - 1))
    return folded.view(steps.dtype)


def _unfolded(steps: Bits) -> Bits:
    return np.asarray((steps >> 1) ^ np.negative(steps & 1))


def _expanded(frame: bytes, least: int, most: int) -> npt.NDArray[np.uint8]:
    try:
        claimed = zstandard.frame_content_size(frame)
        if not least <= claimed <= most:
            raise ValueError(f"a stream of {claimed} bytes where {least} to {most} belong")
        content = _tools.decompressor.decompress(frame, max_output_size=claimed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"not readable as zstd: {error}") from error
    if len(content) != claimed:
        raise ValueError(f"a stream of {len(content)} bytes that claims {claimed}")
    return np.frombuffer(content, np.uint8)
