"""One block's differences packed and unpacked, beside a slow twin that reads the format byte by byte."""

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from knowshift.weights.patch.codec import decode, encode

TYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def twin(packed: bytes, size: int, width: int) -> dict[int, int]:
    """Place and difference of every changed element, read as the format is described."""
    kind, rest, streams = packed[0], packed[1:], []
    while rest:
        length = int.from_bytes(rest[:4], "little")
        streams.append(zstandard.decompress(rest[4 : 4 + length]))
        rest = rest[4 + length :]
    where, *planes = streams
    places = []
    if kind == 1:
        places = [place for place in range(size) if where[place // 8] >> place % 8 & 1]
    else:
        place = -1
        for gap in where:
            place += gap
            if gap < 255:
                place += 1
                places.append(place)
    found = {}
    for number, place in enumerate(places):
        folded = sum(plane[number] << 8 * byte for byte, plane in enumerate(planes))
        step = folded // 2 if folded % 2 == 0 else -(folded + 1) // 2
        found[place] = step % (1 << 8 * width)
    assert len(planes) == width
    return found


@st.composite
def blocks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two blocks of stored bits that differ in none, few, most or all places, a little or at random."""
    width = draw(st.sampled_from([1, 2, 4]))
    size = draw(st.sampled_from([0, 1, 7, 8, 9, 255, 256, 257, 1000, 5000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    before = random.integers(0, 1 << 8 * width, size, TYPES[width], endpoint=False)
    after = before.copy()
    chosen = random.random(size) < draw(st.sampled_from([0, 0.0005, 0.01, 0.1, 0.2, 0.9, 1]))
    if draw(st.booleans()):
        after[chosen] += random.integers(1, 3, int(chosen.sum())).astype(TYPES[width])
    else:
        after[chosen] = random.integers(0, 1 << 8 * width, int(chosen.sum()), TYPES[width], endpoint=False)
    return before, after


@given(blocks())
def test_there_and_back(pair: tuple[np.ndarray, np.ndarray]) -> None:
    before, after = pair
    count, packed = encode(before, after)
    assert count == int((before != after).sum())
    places, steps = decode(packed, count, before.size, before.itemsize)
    there, back = before.copy(), after.copy()
    there[places] += steps
    back[places] -= steps
    assert (there == after).all() and (back == before).all()
    assert steps.dtype == before.dtype
    if count:
        assert twin(packed, before.size, before.itemsize) == dict(zip(places.tolist(), steps.tolist(), strict=True))
    else:
        assert packed == b""


def test_the_smaller_way_to_say_where_is_taken() -> None:
    before = np.zeros(80_000, np.uint16)
    for every, kind in ((2, 1), (7, 1), (9, 0), (1000, 0)):
        after = before.copy()
        after[::every] = 1
        assert encode(before, after)[1][0] == kind


def test_takes_little_more_than_it_must() -> None:
    """A random fifth of the weights moved by up to eight units in the last place: log2(16) + H(1/5) / (1/5) bits."""
    random = np.random.default_rng(0)
    before = random.integers(0, 1 << 16, 1 << 17, np.uint16, endpoint=False)
    chosen = random.random(before.size) < 0.2
    after = before + (chosen * random.choice([*range(-8, 0), *range(1, 9)], before.size)).astype(np.uint16)
    count, packed = encode(before, after)
    assert 8 * len(packed) / count < 1.04 * (4 + 3.61)


@given(blocks(), st.data())
def test_damage_is_a_value_error_or_harmless(pair: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    before, after = pair
    count, packed = encode(before, after)
    damaged = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(damaged) - 1, 0)))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set" if damaged:
                damaged[place] = data.draw(st.integers(0, 255))
            case "cut":
                del damaged[place:]
            case _:
                damaged[place:place] = data.draw(st.binary(max_size=9))
    claimed = data.draw(st.sampled_from([count, count + 1, 0, before.size, before.size + 1, 1 << 31]))
    try:
        places, steps = decode(bytes(damaged), claimed, before.size, before.itemsize)
    except ValueError:
        return
    assert places.size == steps.size == claimed
    assert not places.size or (places[0] >= 0 and places[-1] < before.size and (np.diff(places) > 0).all())


def framed(kind: int, *streams: bytes) -> bytes:
    frames = [zstandard.compress(stream) for stream in streams]
    return bytes([kind]) + b"".join(len(frame).to_bytes(4, "little") + frame for frame in frames)


@pytest.mark.parametrize(
    ("packed", "count", "fault"),
    [
        (b"", 1, "unknown kind"),
        (b"\x02", 1, "unknown kind"),
        (b"\x00", 1, "ends too soon|zstd"),
        (framed(0, b"\x00", b"\x00"), 9, "9 differences in 8"),
        (framed(0, b"\x00", b"\x00"), 0, "nothing differs"),
        (framed(0, b"\x08", b"\x02"), 1, "positions that do not fit"),
        (framed(0, b"\x00\xff", b"\x02"), 1, "stream of 2 bytes"),
        (framed(0, b"\x00\x00", b"\x02"), 1, "stream of 2 bytes"),
        (framed(0, b"\xff", b"\x02"), 1, "do not end"),
        (framed(1, b"\x00", b"\x02"), 1, "positions that do not fit"),
        (framed(1, b"\x03", b"\x02"), 1, "positions that do not fit"),
        (framed(1, b"\x01\x01", b"\x02"), 1, "stream of 2 bytes"),
        (framed(1, b"\x01", b"\x02\x02"), 1, "stream of 2 bytes"),
        (framed(1, b"\x01", b"\x02") + b"!", 1, "more bytes"),
        (framed(1, b"\x01", b"\x02")[:-1], 1, "ends too soon"),
        (framed(1, b"\x01", bytes(1 << 26)), 1, "stream of 67108864 bytes"),
    ],
)
def test_what_is_wrong_is_said(packed: bytes, count: int, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        decode(packed, count, 8, 1)


def test_every_stream_carries_a_checksum() -> None:
    before = np.zeros(1000, np.uint16)
    count, packed = encode(before, np.arange(1000, dtype=np.uint16))
    at = 1
    while at < len(packed):
        length = int.from_bytes(packed[at : at + 4], "little")
        assert zstandard.get_frame_parameters(packed[at + 4 : at + 4 + length]).has_checksum
        at += 4 + length
    for place in range(1, len(packed)):
        damaged = bytearray(packed)
        damaged[place] ^= 1
        with pytest.raises(ValueError):
            decode(bytes(damaged), count, 1000, 2)
