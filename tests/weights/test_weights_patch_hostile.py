"""Patch files that nobody vouches for: one clear line, no crash, no bomb, and never a wrong checkpoint."""

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import weights_twin as twin
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowshift.errors import InputError
from knowshift.weights import patch
from knowshift.weights.restore import restore

MANY = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Parts:
    """A patch file taken apart, as its format is described."""

    blocks: bytes
    index: bytes
    manifest: bytes

    @classmethod
    def of(cls, raw: bytes) -> "Parts":
        tail = raw[-56:]
        index, manifest = int.from_bytes(tail[:8], "little"), int.from_bytes(tail[8:16], "little")
        body = raw[8:-56]
        end = len(body) - index - manifest
        return cls(body[:end], zstandard.decompress(body[end : end + index]), zstandard.decompress(body[end + index :]))

    def file(self, path: Path, pack: Callable[[bytes], bytes] = zstandard.compress) -> Path:
        """Put together again, with a checksum that fits."""
        index, manifest = pack(self.index), pack(self.manifest)
        lengths = len(index).to_bytes(8, "little") + len(manifest).to_bytes(8, "little")
        digest = hashlib.sha256(index + manifest).digest()
        path.write_bytes(b"KSPATCH1" + self.blocks + index + manifest + lengths + digest + b"KSPATCH1")
        return path


@pytest.fixture(scope="module")
def made(pair_of, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A patch, the tuned model and the restored one."""
    base, tuned = pair_of("llama", "bf16", True)
    folder = tmp_path_factory.mktemp("patch")
    with pytest.MonkeyPatch.context() as small:
        for module in ("walk", "patch.write"):
            small.setattr(f"knowshift.weights.{module}.TILE", 997)
        (file,) = restore(base, tuned, [0.2], folder, patch=True)
    return file, tuned, restore(base, tuned, [0.2], folder)[0]


def refused_or_right(file: Path, made: tuple[Path, Path, Path], out: Path) -> str | None:
    """Apply ``file``: the one line that refuses it, or None if what it made is what it should be."""
    _, tuned, restored = made
    shutil.rmtree(out, ignore_errors=True)
    try:
        patch.render(patch.describe(file))
        patch.apply(file, tuned, out)
    except InputError as error:
        assert str(error).startswith((str(file), str(tuned))) and len(str(error)) < 1000
        assert not out.exists() and not [path for path in out.parent.iterdir() if path.name.startswith(".out")]
        return str(error)
    assert twin.same_bits(twin.load(out), twin.load(restored))
    return None


def test_taken_apart_and_put_together_it_is_whole(made, tmp_path: Path) -> None:
    parts = Parts.of(made[0].read_bytes())
    assert refused_or_right(parts.file(tmp_path / "x.patch"), made, tmp_path / "out") is None


@given(data=st.data())
@MANY
def test_damaged_bytes(made, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(made[0].read_bytes())
    before = bytes(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1) | st.integers(max(len(raw) - 80, 0), len(raw) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert", "zero"])):
            case "set":
                raw[place] = data.draw(st.integers(0, 255))
            case "cut":
                del raw[place : place + data.draw(st.integers(1, 1000))]
            case "insert":
                raw[place:place] = data.draw(st.binary(min_size=1, max_size=20))
            case _:
                raw[place : place + 8] = bytes(len(raw[place : place + 8]))
        raw = raw or bytearray(b"\0")
    file = tmp_path / "x.patch"
    file.write_bytes(raw)
    said = refused_or_right(file, made, tmp_path / "out")
    assert said or raw == before or Parts.of(bytes(raw)).blocks != Parts.of(before).blocks


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 55, 64, 100, -1, -8, -56, -57, -500])
def test_truncated(made, tmp_path: Path, kept: int) -> None:
    file = tmp_path / "x.patch"
    file.write_bytes(made[0].read_bytes()[:kept])
    said = refused_or_right(file, made, tmp_path / "out")
    assert said and ("truncated" in said or "not a patch" in said)


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5)
    | st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**62, 2**63, 2**64, 10**30, [], {}, "F32", "F4", "0" * 64, [2**62] * 9])
)  # fmt: skip


def places(value: Any, here: tuple = ()) -> list[tuple]:
    """The way to everything within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, item in inner for way in [(*here, key), *places(item, (*here, key))]]


@given(data=st.data())
@MANY
def test_lies_in_the_manifest(made, tmp_path: Path, data: st.DataObject) -> None:
    parts = Parts.of(made[0].read_bytes())
    manifest = json.loads(parts.manifest)
    ways = places(manifest | {"tensors": manifest["tensors"][:3]})
    for _ in range(data.draw(st.integers(1, 3))):
        *way, key = data.draw(st.sampled_from(ways))
        inner = manifest
        try:
            for step in way:
                inner = inner[step]
            if data.draw(st.booleans()):
                inner[key] = data.draw(VALUES)
            elif isinstance(inner, dict):
                del inner[key]
            elif isinstance(inner, list):
                inner.append(inner[key])
        except (KeyError, IndexError, TypeError):  # an earlier change took it away
            continue
    parts.manifest = json.dumps(manifest).encode()
    refused_or_right(parts.file(tmp_path / "x.patch"), made, tmp_path / "out")


@given(data=st.data())
@MANY
def test_lies_in_the_index(made, tmp_path: Path, data: st.DataObject) -> None:
    parts = Parts.of(made[0].read_bytes())
    index = bytearray(parts.index)
    for _ in range(data.draw(st.integers(1, 3))):
        place = 4 * data.draw(st.integers(0, len(index) // 4 - 1))
        value = int.from_bytes(index[place : place + 4], "little")
        value += data.draw(st.sampled_from([-1, 1, 2**31, -value, 1000]))
        index[place : place + 4] = (value % 2**32).to_bytes(4, "little")
    parts.index = bytes(index)
    said = refused_or_right(parts.file(tmp_path / "x.patch"), made, tmp_path / "out")
    assert said or parts.index == Parts.of(made[0].read_bytes()).index


def changed(made: tuple[Path, Path, Path], tmp_path: Path, change: Callable[[dict], object]) -> str:
    """What is said of the patch with a changed manifest."""
    parts = Parts.of(made[0].read_bytes())
    manifest = json.loads(parts.manifest)
    change(manifest)
    parts.manifest = json.dumps(manifest).encode()
    return refused_or_right(parts.file(tmp_path / "x.patch"), made, tmp_path / "out") or ""


def test_what_is_wrong_is_said(made, tmp_path: Path) -> None:
    def first(manifest: dict) -> dict:
        return next(entry for entry in manifest["tensors"] if entry["changed"])

    cases: list[tuple[Callable[[dict], object], str]] = [
        (lambda m: first(m).update(changed=first(m)["changed"] + 1), "do not add up"),
        (lambda m: first(m).update(changed=10**9), "changes 1000000000 of"),
        (lambda m: first(m).update(changed=True), "valid integer"),
        (lambda m: first(m).update(shape=[2**62, 2**62]), "of 21267647932558653966460912964485513216 elements"),
        (lambda m: first(m).update(shape=[2**41]), "more than 16777216 blocks"),
        (lambda m: first(m).update(shape=[1] * 17), "at most 16"),
        (lambda m: first(m).update(restored="0" * 64), "would not become what the patch promises"),
        (lambda m: first(m).update(tuned="0" * 64), "neither as before"),
        (lambda m: first(m).update(name="\x1b[2J"), r"'\x1b[2J'"),
        (lambda m: m["tensors"].append(m["tensors"][0]), "named twice"),
        (lambda m: m.update(block=0), "greater than or equal to 1"),
        (lambda m: m.update(block=1 << 40), "less than or equal to 4194304"),
        (lambda m: m.pop("origin"), "manifest at origin: Field required"),
        (lambda m: m["origin"]["settings"].update(seed=10**4000), "manifest at origin.settings.seed"),
    ]
    for change, fault in cases:
        assert fault in changed(made, tmp_path, change)


def test_long_names_take_no_more_room_than_they_are_long(made, tmp_path: Path) -> None:
    """Columns are not as wide as whoever made the patch says."""
    parts = Parts.of(made[0].read_bytes())
    manifest = json.loads(parts.manifest)
    manifest["origin"]["settings"] |= {"x" * 1_000_000: 0, **{f"y{number}": number for number in range(1000)}}
    manifest["tensors"] += [
        manifest["tensors"][-1] | {"name": name, "changed": 0} for name in ("z" * 1_000_000, *map(str, range(1000)))
    ]
    for entry in manifest["tensors"]:
        entry["tuned"] = entry["restored"]
    parts.manifest = json.dumps(manifest).encode()
    assert len(patch.render(patch.describe(parts.file(tmp_path / "x.patch")))) < 1_200_000


def test_manifests_that_are_no_manifest(made, tmp_path: Path) -> None:
    parts = Parts.of(made[0].read_bytes())
    for manifest in (b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"tensors": NaN}'):
        parts.manifest = manifest
        said = refused_or_right(parts.file(tmp_path / "x.patch"), made, tmp_path / "out")
        assert said and "damaged" in said


def test_bombs_are_not_set_off(made, tmp_path: Path) -> None:
    """A few kilobytes that claim to be gigabytes are refused before any memory is taken for them."""
    bomb = zstandard.ZstdCompressor(level=1).compressobj(size=1 << 33)
    packed = b"".join(bomb.compress(bytes(1 << 24)) for _ in range(1 << 9)) + bomb.flush()
    assert len(packed) < 1 << 20
    unsized = zstandard.ZstdCompressor(write_content_size=False)
    parts = Parts.of(made[0].read_bytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for which in ("index", "manifest"):
        own = getattr(parts, which)
        for pack in (lambda part, own=own: packed if part == own else zstandard.compress(part), unsized.compress):
            said = refused_or_right(parts.file(tmp_path / "x.patch", pack), made, tmp_path / "out")
            assert said and "where at most" in said
    # As a block: its length in place of the first one's, its bytes in place of the first stream's.
    first = int.from_bytes(parts.index[4:8], "little")
    block = parts.blocks[:1] + len(packed).to_bytes(4, "little") + packed
    parts.blocks = block + parts.blocks[first:]
    parts.index = parts.index[:4] + len(block).to_bytes(4, "little") + parts.index[8:]
    said = refused_or_right(parts.file(tmp_path / "x.patch"), made, tmp_path / "out")
    assert said and "damaged: block 0 of tensor" in said and "stream of 8589934592 bytes" in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18  # kilobytes


def test_blocks_in_another_order_are_noticed(made, tmp_path: Path) -> None:
    parts = Parts.of(made[0].read_bytes())
    (count, length), (other, own) = (
        (int.from_bytes(parts.index[at : at + 4], "little"), int.from_bytes(parts.index[at + 4 : at + 8], "little"))
        for at in (0, 8)
    )
    assert count and other
    parts.blocks = parts.blocks[length : length + own] + parts.blocks[:length] + parts.blocks[length + own :]
    parts.index = parts.index[8:16] + parts.index[:8] + parts.index[16:]
    said = refused_or_right(parts.file(tmp_path / "x.patch"), made, tmp_path / "out")
    assert said and "would not become what the patch promises" in said


def test_what_is_no_patch_file(made, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("--- a\n+++ b\n")
    (tmp_path / "empty").touch()
    newer = bytearray(made[0].read_bytes())
    newer[7:8] = newer[-1:] = b"2"
    (tmp_path / "newer").write_bytes(newer)
    for name, fault in (
        ("pipe", "not a regular file"),
        ("", "not a regular file"),
        ("none", "No such file"),
        ("text", "not a patch"),
        ("empty", "not a patch"),
        ("newer", "update it"),
    ):
        with pytest.raises(InputError, match=fault):
            patch.Patch(tmp_path / name)


def test_a_patch_that_becomes_shorter_while_it_is_read(made, tmp_path: Path) -> None:
    file = shutil.copyfile(made[0], tmp_path / "x.patch")
    opened = patch.Patch(file)
    os.truncate(file, 100)
    with pytest.raises(InputError, match="became shorter"):
        for entry in opened.manifest.changed:
            opened.differences(entry, 0)
