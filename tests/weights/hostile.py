"""Damaged and malicious checkpoints, made from a real one: the same seed, the same damage.

Used by the tests on a few thousand seeds and by ``benchmarks/weights_fuzz.py`` on many more.
"""

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from safetensors import safe_open

from knowshift.errors import InputError
from knowshift.weights.checkpoint import INDEX, SINGLE, Checkpoint
from knowshift.weights.pairing import pair

NUMBERS = (
    "0", "-0", "1", "-1", "2", "7", "8", "1.0", "2e0", "1e999", "NaN", "-Infinity", "true", "null", "[]", "{}", '""',
    '"8"', "255", "65536", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "9" * 300, "9" * 5000, "1" + "0" * 40, "[" * 300 + "]" * 300, "[" * 20_000,
)  # fmt: skip
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "F6_E2M3", "C64", "Q4_0", "", "bf16")
SHARDS = (
    "../secret.safetensors", "/etc/passwd", "../../x", "a/../b.safetensors", "..", ".", "", "\0.safetensors",
    "model.safetensors\n", "x" * 300 + ".safetensors", "\ud800.safetensors", "C:x.safetensors", "..\\x.safetensors",
    "/proc/self/mem.safetensors", "~/x.safetensors", "config.json", "no-such.safetensors", 3, None, [], {}, True,
)  # fmt: skip
TEXTS = ("", "a", "\0", "\n", "\ud800", "é", "x" * 3000, "__metadata__", "model.norm.weight", "layers." + "9" * 5000)


def spoil(seed: int, real: Path, folder: Path) -> str:
    """Write a copy of the checkpoint ``real`` to ``folder``, damaged in one to three ways; returns which."""
    draw = random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in _contents(real):
        (folder / name).write_bytes(content)
    done = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        sharded = (folder / INDEX).is_file()
        ways = [_bytes, _length, _text, _tree, _tree, _tree, _special, _random_file, *([_index] * 3 if sharded else [])]
        way = draw.choice(ways)
        files = [file for file in sorted(folder.glob("*.safetensors")) if file.is_file() and not file.is_symlink()]
        if files or way is _index:
            # What was damaged before may hold nothing any more that this way could damage.
            with suppress(ValueError, LookupError, TypeError, RecursionError):
                way(draw, folder / INDEX if way is _index else draw.choice(files))
                done.append(way.__name__.strip("_"))
    return "+".join(sorted(set(done)))


@cache
def _contents(folder: Path) -> list[tuple[str, bytes]]:
    return [(file.name, file.read_bytes()) for file in sorted(folder.glob("model*"))]


def outcome(folder: Path) -> str:
    """Open, read and pair a checkpoint: ``read`` or ``refused``; anything else is a fault and raises."""
    try:
        opened = Checkpoint.open(folder)
        for tensor in opened.tensors.values():
            if tensor.dtype not in ("F4", "F6_E2M3", "F6_E3M2"):
                assert opened.read(tensor.name).nbytes == tensor.bytes
        pair(opened, opened, "all")
        result = "read"
    except InputError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 1000, message[:2000]
        assert str(folder) in message, message
        return "refused"
    for file in opened.files:
        try:
            with safe_open(file, "numpy") as other:
                ours = {name: tensor for name, tensor in opened.tensors.items() if tensor.file == file}
                assert set(other.keys()) == ours.keys()
                for name, tensor in ours.items():
                    assert tuple(other.get_slice(name).get_shape()) == tensor.shape
        except Exception as error:
            raise AssertionError(f"{file}: read here, but not by safetensors: {error}") from error
    return result


_opened: list[str] = []
_watching = False


def _hook(event: str, arguments: tuple) -> None:
    if _watching and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fsdecode(arguments[0]))


def watch(on: bool) -> list[str]:
    """Begin to note which files are opened, or stop and say which were."""
    global _watching
    if _hook not in _installed:
        _installed.append(_hook)
        sys.addaudithook(_hook)
    if on:
        _opened.clear()
    _watching = on
    return _opened


@contextmanager
def only_opening(folder: Path) -> Iterator[None]:
    """Fail if within the block a file is opened that ``folder`` does not list."""
    watch(True)
    try:
        yield
    finally:
        opened = set(watch(False))
    listed = set(map(str, folder.iterdir()))
    assert opened <= listed, opened - listed


_installed: list = []


def _split(file: Path) -> tuple[bytes, bytes]:
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return raw[8 : 8 + length], raw[8 + length :]


def _join(file: Path, header: bytes, data: bytes) -> None:
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)


def _bytes(draw: random.Random, file: Path) -> None:
    """Bytes changed, lost, doubled or added anywhere."""
    raw = bytearray(file.read_bytes())
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(raw) + 1)
        match draw.randrange(5):
            case 0:
                raw[place : place + 1] = draw.randbytes(1)
            case 1:
                del raw[place:]
            case 2:
                del raw[place : place + draw.randrange(20)]
            case 3:
                raw[place:place] = draw.randbytes(draw.randrange(1, 20))
            case 4:
                raw[place:place] = raw[place : place + draw.randrange(40)]
    file.write_bytes(raw)


def _length(draw: random.Random, file: Path) -> None:
    """A header length that lies."""
    raw = file.read_bytes()
    true = int.from_bytes(raw[:8], "little")
    lies = (0, 1, 2, 7, 8, len(raw), len(raw) - 8, len(raw) - 7, 10**8, 10**8 + 1, 1 << 62, (1 << 63) - 1, 1 << 63)
    lie = draw.choice((*lies, (1 << 64) - 1, true - 1, true + 1, true + 8)) % (1 << 64)
    file.write_bytes(lie.to_bytes(8, "little") + raw[8:])


def _text(draw: random.Random, file: Path) -> None:
    """The header's text: a number or text replaced, an entry doubled, bytes that are no UTF-8."""
    header, data = _split(file)
    place = draw.randrange(len(header) + 1)
    match draw.randrange(4):
        case 0:
            digits = [at for at, byte in enumerate(header) if byte in b"0123456789"]
            if digits:
                place = draw.choice(digits)
                header = header[:place] + draw.choice(NUMBERS).encode() + header[place + 1 :]
        case 1:
            entries = header.strip().removeprefix(b"{").removesuffix(b"}")
            header = b"{" + entries + b"," + entries + b"}"
        case 2:
            header = (
                header[:place]
                + draw.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\0", b"\\ud800"))
                + header[place:]
            )
        case 3:
            opened = draw.choice((b"[", b"{", b'{"a":')) * draw.choice((1, 50, 900, 5000, 100_000))
            header = opened if draw.random() < 0.3 else header[:place] + opened + header[place:]
    _join(file, header, data)


def _tree(draw: random.Random, file: Path) -> None:
    """One tensor's entry: its name, type, shape or place."""
    raw, data = _split(file)
    header = json.loads(raw)
    name = draw.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    begin, end = entry["data_offsets"]
    value = json.loads(draw.choice([number for number in NUMBERS if len(number) < 400 and "[[" not in number]))
    match draw.randrange(9):
        case 0:
            entry["dtype"] = draw.choice(DTYPES)
        case 1:
            entry["shape"] = draw.choice(
                ([], [0], [end - begin], [1] * 70, [value], entry["shape"] * 2, value, [0, 1 << 62])
            )
        case 2:
            if entry["shape"]:
                entry["shape"][draw.randrange(len(entry["shape"]))] = value
        case 3:
            entry["data_offsets"] = draw.choice(
                ([begin, value], [value, end], [end, begin], [begin], value, [0, len(data)])
            )
        case 4:
            move = draw.choice((-8, -2, -1, 1, 2, 8))
            entry["data_offsets"] = [begin + move, end + draw.choice((0, move))]
        case 5:
            header[draw.choice(TEXTS)] = header.pop(name)
        case 6:
            del entry[draw.choice(sorted(entry))]
        case 7:
            header[name] = draw.choice(([], None, 3, "x", {}, {**entry, "more": value}))
        case 8:
            header[draw.choice(TEXTS)] = {"dtype": "F32", "shape": [0], "data_offsets": [begin, begin]}
    _join(file, json.dumps(header).encode(), data)


def _random_file(draw: random.Random, file: Path) -> None:
    """No real header at all."""
    body = draw.randbytes(draw.randrange(200))
    file.write_bytes(draw.choice((b"", body, len(body).to_bytes(8, "little") + body, b"\x02" + bytes(7) + b"{}")))


def _special(draw: random.Random, file: Path) -> None:
    """Something else under the file's name."""
    file.unlink()
    match draw.randrange(7):
        case 0:
            os.mkfifo(file)
        case 1:
            file.mkdir()
        case 2:
            file.symlink_to(file.name)
        case 3:
            file.symlink_to("nowhere")
        case 4:
            file.symlink_to(draw.choice(("/dev/zero", "/dev/null", "/proc/self/maps", "/")))
        case 5:
            (file.parent / "pytorch_model.bin").write_bytes(b"\x80\x04.")
        case 6:
            pass


def _index(draw: random.Random, file: Path) -> None:
    """The index: shards that are none, tensors it should not or should have, no JSON."""
    index = json.loads(file.read_bytes())
    places = index["weight_map"]
    name = draw.choice(sorted(dict(places)))
    match draw.randrange(7):
        case 0 | 1:
            places[name] = draw.choice(SHARDS)
        case 2:
            del places[name]
        case 3:
            places[draw.choice(TEXTS)] = places[name]
        case 4:
            places[name] = draw.choice(sorted(map(repr, places.values()))).strip("'")
        case 5:
            index["weight_map"] = draw.choice(([], None, {}, 3, [places]))
        case 6:
            text = json.dumps(index)
            place = draw.randrange(len(text))
            insert = draw.choice(("[" * 100_000, "{", '"a":1,"a":2,', "\ufeff", "NaN"))
            file.write_text(text[:place] + insert + text[place:], "utf-8")
            return
    file.write_text(json.dumps(index), "utf-8")


def real_checkpoints(folder: Path) -> list[Path]:
    """A real model of a few kilobytes, whole and in shards."""
    import torch

    import tiny

    built = tiny.model("llama", hidden=8, layers=1, vocabulary=32).to(torch.bfloat16)
    built.save_pretrained(folder / "whole")
    built.save_pretrained(folder / "sharded", max_shard_size="1KB")
    assert (folder / "whole" / SINGLE).is_file() and (folder / "sharded" / INDEX).is_file()
    return [folder / "whole", folder / "sharded"]
