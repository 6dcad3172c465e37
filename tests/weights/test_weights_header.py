"""Hostile safetensors headers: one clear line, never a crash, never a byte read outside of the file."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from knowshift.errors import InputError
from knowshift.weights.blob import Blob
from knowshift.weights.header import TYPE_BITS, read_header


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_safetensors_writes(tmp_path: Path) -> None:
    arrays = {
        "b": np.arange(6, dtype=np.float16).reshape(2, 3),
        "a": np.array(3.0, np.float32),
        "none": np.zeros((0, 4)),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    tensors = {tensor.name: tensor for tensor in read_header(Blob(tmp_path / "x.safetensors"))}
    raw = (tmp_path / "x.safetensors").read_bytes()
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        tensor = tensors[name]
        assert tensor.shape == array.shape and tensor.size == array.size
        assert raw[tensor.offset : tensor.offset + tensor.bytes] == array.tobytes()


@pytest.mark.parametrize(
    ("header", "data", "length", "words"),
    [
        ({}, b"", 1 << 40, "longer than the file"),
        ({}, b"", 3000, "longer than the file"),
        (b"[1]", b"", None, "not a JSON object"),
        (b"\xff\xfe", b"", None, "not valid JSON"),
        (b'{"a": ', b"", None, "not valid JSON"),
        (b"[" * 100_000, b"", None, "not valid JSON"),
        (b'{"a":1,"a":2}', b"", None, "'a' twice"),
        ({"a": 3}, b"", None, "tensor 'a'"),
        ({"a": entry(dtype="Q4")}, bytes(8), None, "unknown dtype 'Q4'"),
        ({"a": entry(shape=(-2,))}, bytes(8), None, "tensor 'a': its shape"),
        ({"a": entry(shape=(2.0,))}, bytes(8), None, "its shape"),
        ({"a": entry(shape=(True, 2))}, bytes(8), None, "its shape"),
        ({"a": entry(shape=(1 << 62, 1 << 62))}, bytes(8), None, "too many elements"),
        ({"a": entry(shape=(1 << 61,))}, bytes(8), None, "span 8 bytes"),
        ({"a": entry(shape=[1 << 62] * 50_000)}, bytes(8), None, "too many elements"),
        ({"a": entry(shape=(1 << 63,))}, bytes(8), None, "its shape"),
        ({"a": entry(shape=(float("nan"),))}, bytes(8), None, "not valid JSON"),
        ({"a": entry(shape=("x" * 5000,))}, bytes(8), None, "its shape"),
        ({"a\n" * 5000: entry(dtype="Q4")}, bytes(8), None, "unknown dtype 'Q4'"),
        ({"\ud800": entry()}, bytes(8), None, "not valid JSON"),
        ({"a": {**entry(), "more": "\udfff"}}, bytes(8), None, "not valid JSON"),
        (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", b"", None, "tensor 'a'"),
        (b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b"]}}", b"", None, "not valid JSON"),
        (b'{"a": {"dtype": "F32", "shape": [' + b"9" * 4000 + b'], "data_offsets": [0, 8]}}', b"", None, "its shape"),
        ({"__metadata__": {"format": 1}}, b"", None, "__metadata__"),
        ({"__metadata__": []}, b"", None, "__metadata__"),
        (b'{"a":{"dtype":"F32","dtype":"F32"}}', b"", None, "'dtype' twice"),
        ({}, b"", (1 << 63) - 1, "longer than the file"),
        ({}, b"", (1 << 64) - 1, "longer than the file"),
        ({"a": entry(shape=(3,))}, bytes(8), None, "span 8 bytes"),
        ({"a": entry(offsets=(8, 0))}, bytes(8), None, "span -8 bytes"),
        ({"a": entry(offsets=(-8, 0))}, bytes(8), None, "data_offsets"),
        ({"a": entry(offsets=(0, 8, 9))}, bytes(8), None, "data_offsets"),
        ({"a": entry()}, bytes(4), None, "beyond the end"),
        ({"a": entry()}, bytes(9), None, "belong to none"),
        ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12), None, "'b' overlaps"),
        ({"a": entry(), "b": entry(offsets=(16, 24))}, bytes(24), None, "'b' leaves a gap"),
    ],
)
def test_refuses(tmp_path: Path, header: object, data: bytes, length: int | None, words: str) -> None:
    file = write(tmp_path / "x.safetensors", header, data, length)
    with pytest.raises(InputError, match=r"x\.safetensors") as caught:
        read_header(Blob(file))
    message = str(caught.value)
    assert words in message and message.isprintable() and len(message) < 800


@pytest.mark.parametrize("size", range(8))
def test_refuses_a_file_too_short_for_a_length(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(bytes(size))
    with pytest.raises(InputError, match="truncated"):
        read_header(Blob(tmp_path / "x.safetensors"))


numbers = st.one_of(st.integers(-3, 40), st.integers(1 << 60, 1 << 70), st.booleans(), st.floats(), st.none())
entries = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.one_of(st.sampled_from(sorted(TYPE_BITS)), st.text(max_size=3), st.none()),
            "shape": st.one_of(st.lists(numbers, max_size=3), st.none()),
            "data_offsets": st.one_of(st.lists(numbers, max_size=3), st.text(max_size=2)),
        },
    ),
    st.none(),
    st.lists(st.integers(), max_size=2),
)


@settings(max_examples=400, deadline=None)
@given(
    header=st.one_of(st.dictionaries(st.text(max_size=4), entries, max_size=3), st.binary(max_size=40)),
    data=st.binary(max_size=48),
    length=st.one_of(st.none(), st.integers(0, (1 << 64) - 1)),
)
def test_fuzzed_headers_are_read_or_refused(tmp_path_factory, header, data, length) -> None:
    file = write(tmp_path_factory.getbasetemp() / "fuzz.safetensors", header, data, length)
    try:
        tensors = read_header(Blob(file))
    except InputError:
        return
    # What is accepted lies in the file and covers it.
    assert (
        sum(tensor.bytes for tensor in tensors) + 8 + int.from_bytes(file.read_bytes()[:8], "little")
        == file.stat().st_size
    )


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 200), value=st.integers(0, 255), cut=st.integers(0, 60))
def test_a_damaged_file_is_read_as_safetensors_reads_it_or_refused(tmp_path_factory, place, value, cut) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_file({"one": np.ones((2, 2), np.float32), "two": np.ones(3, np.float16)}, file)
    raw = bytearray(file.read_bytes())
    raw[place % len(raw)] = value
    file.write_bytes(raw[: len(raw) - cut])
    try:
        tensors = read_header(Blob(file))
    except InputError:
        return
    try:
        with safe_open(file, "numpy") as opened:
            assert {tensor.name for tensor in tensors} == set(opened.keys())
            for tensor in tensors:
                assert tuple(opened.get_slice(tensor.name).get_shape()) == tensor.shape
    except SafetensorError as error:
        pytest.fail(f"accepted what safetensors refuses: {error}")
