"""Checkpoints that lie, change or are no files: one clear line, no hang, nothing outside of the folder opened."""

import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import hostile
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.weights.blob import Blob
from knowshift.weights.checkpoint import INDEX, SINGLE, Checkpoint
from knowshift.weights.diff import diff
from knowshift.weights.merge import merge
from knowshift.weights.pairing import pair
from knowshift.weights.restore import restore

seen: Counter[str] = Counter()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return hostile.real_checkpoints(tmp_path_factory.mktemp("real"))


@settings(max_examples=2000, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_damaged_checkpoints_are_read_as_safetensors_reads_them_or_refused(real, tmp_path_factory, seed) -> None:
    folder = tmp_path_factory.getbasetemp() / "hostile-case"
    hostile.spoil(seed, real[seed % 2], folder)
    with hostile.only_opening(folder):
        seen[hostile.outcome(folder)] += 1


def test_the_damage_was_neither_harmless_nor_always_fatal() -> None:
    assert seen["refused"] > 50 and seen["read"] > 5


@pytest.mark.parametrize("seed", range(3))
def test_the_undamaged_checkpoints_are_read(real, seed: int) -> None:
    for folder in real:
        with hostile.only_opening(folder):
            assert hostile.outcome(folder) == "read"


@pytest.mark.parametrize("name", [SINGLE, INDEX])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop", "dangling"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, name: str, kind: str) -> None:
    place = tmp_path / name
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to({"device": "/dev/zero", "loop": name, "dangling": "nowhere"}[kind])
    with pytest.raises(InputError, match=rf"{name}: (is not a regular file|cannot be read)"):
        Checkpoint.open(tmp_path)


def test_a_shard_that_is_a_pipe(pair_of, tmp_path: Path) -> None:
    folder = shutil.copytree(pair_of("llama", "bf16", True)[1], tmp_path / "copy")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(InputError, match=rf"{shard.name}: is not a regular file"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("locked", ["folder", "file", "index"])
def test_no_permission(pair_of, locked: str) -> None:
    place = Path(tempfile.mkdtemp())  # pytest's own folders may be entered by nobody else
    try:
        place.chmod(0o755)
        folder = shutil.copytree(pair_of("llama", "bf16", locked == "index")[1], place / "model")
        shut = {"folder": folder, "file": folder / SINGLE, "index": folder / INDEX}[locked]
        shut.chmod(0)
        user = os.geteuid()
        if user == 0:  # root may read everything, so be somebody else
            os.seteuid(65534)
        try:
            with pytest.raises(InputError, match=rf"{shut.name}: cannot be read: Permission denied"):
                Checkpoint.open(folder)
        finally:
            os.seteuid(user)
            shut.chmod(0o755)
    finally:
        shutil.rmtree(place)


def test_a_file_that_shrinks_while_it_is_read(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()
    folder = shutil.copytree(tuned, tmp_path / "copy")
    opened = Checkpoint.open(folder)
    pairs, _ = pair(Checkpoint.open(base), opened, "blocks")
    os.truncate(folder / SINGLE, 5000)
    with pytest.raises(InputError, match=rf"{SINGLE}: became shorter while it was read"):
        pairs[-1].tuned_bits(0, pairs[-1].size)


def test_a_file_that_is_replaced_while_it_is_read_stays_what_it_was(pair_of, tmp_path: Path) -> None:
    folder = shutil.copytree(pair_of()[1], tmp_path / "copy")
    opened = Checkpoint.open(folder)
    name = next(iter(opened.tensors))
    before = opened.read(name)
    (folder / SINGLE).rename(folder / "old")
    (folder / SINGLE).write_bytes(b"other")
    assert np.array_equal(opened.read(name), before)


def test_files_are_closed_with_the_checkpoint(real) -> None:
    held = Path("/proc/self/fd")
    if not held.is_dir():
        pytest.skip("no list of open files on this system")
    before = len(list(held.iterdir()))
    for _ in range(50):
        Checkpoint.open(real[1])
    assert len(list(held.iterdir())) <= before + 20


def test_words_from_an_odd_place(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(range(20)))
    words = Blob(tmp_path / "x").words(3, 4, np.dtype("uint32"))
    assert words.tobytes() == bytes(range(3, 19)) and words.flags.aligned and not words.flags.writeable
    assert Blob(tmp_path / "x").words(20, 0, np.dtype("uint32")).size == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "the index is not valid JSON"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "holds 'a' twice"),
        ("\xff", "the index is not valid JSON"),
        ("[]", "weight_map"),
        ('{"weight_map": {"a": ["x"]}}', "tensor 'a'"),
        ('{"weight_map": {"a": "\\ud800.safetensors"}}', "not valid JSON"),
        ('{"weight_map": {"a": "x\\n.safetensors"}}', "is not the name of a shard"),
        ('{"weight_map": {"a": "' + "x" * 5000 + '.safetensors"}}', "no such file"),
        ("9" * 5000, "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_hostile_indexes(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / INDEX).write_text(text, "latin-1")
    with pytest.raises(InputError) as caught:
        Checkpoint.open(tmp_path)
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_a_link_out_of_the_folder_is_followed_but_a_name_is_not(pair_of, tmp_path: Path) -> None:
    tuned = pair_of("llama", "bf16", True)[1]
    folder = tmp_path / "linked"
    folder.mkdir()
    for file in tuned.iterdir():
        (folder / file.name).symlink_to(file)
    assert list(Checkpoint.open(folder).tensors) == list(Checkpoint.open(tuned).tensors)
    # The same file by a path through a link that the folder does hold.
    (folder / "sub").symlink_to(tuned)
    index = json.loads((tuned / INDEX).read_text())
    index["weight_map"] = {name: f"sub/{shard}" for name, shard in index["weight_map"].items()}
    (folder / INDEX).unlink()
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="is not the name of a shard"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("place", [INDEX, "config.json"])
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "9" * 5000, "\xff", "[]"]
    + [json.dumps({"weight_map": {"a": value}}) for value in (3, [1], None, "/etc/passwd", "../secret.safetensors")],
)
def test_the_command_line_says_one_line_and_opens_nothing_outside(pair_of, tmp_path, capsys, place: str, text) -> None:
    base, tuned = pair_of("llama", "bf16", True)
    folder = shutil.copytree(tuned, tmp_path / "copy")
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    (folder / place).write_text(text, "latin-1")
    if place == "config.json" and text[0] == "{":
        return  # a fine configuration
    hostile.watch(True)
    try:
        status = main(["diff", str(base), str(folder), "--out", str(tmp_path / "out")])
    finally:
        opened = hostile.watch(False)
    assert not [path for path in opened if "secret" in path or path == "/etc/passwd"]
    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1) or (place, text, status) == ("config.json", "[]", 0), error
    assert place in error or not status


@pytest.fixture
def odd(tmp_path: Path) -> tuple[Path, Path]:
    """A pair with tensors without dimensions and without elements."""
    generator = torch.Generator().manual_seed(0)
    for name in ("base", "tuned"):
        tensors = {
            "model.layers.0.mlp.up_proj.weight": torch.randn(7, 5, generator=generator).bfloat16(),
            "model.layers.0.mlp.scale": torch.randn((), generator=generator).bfloat16(),
            "model.layers.0.mlp.none": torch.zeros(0, 4).bfloat16(),
            "model.layers.0.mlp.neither": torch.zeros(3, 0).bfloat16(),
        }
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / SINGLE, metadata={"format": "pt"})
        (tmp_path / name / "config.json").write_text("{}")
    return tmp_path / "base", tmp_path / "tuned"


def test_tensors_without_dimensions_or_elements(odd: tuple[Path, Path], tmp_path: Path) -> None:
    result = diff(*odd)
    assert result.metrics["parameters"] == 36
    none, everything = restore(*odd, ["0", "1"], tmp_path / "out")
    assert (none / SINGLE).read_bytes() == (odd[1] / SINGLE).read_bytes()
    for written in (everything, merge("interpolate", *odd, tmp_path / "mixed", alpha=0.0)):
        for name, tensor in load_file(odd[0] / SINGLE).items():
            assert torch.equal(load_file(written / SINGLE)[name], tensor), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_values_that_are_no_numbers_are_counted_by_tensor(odd, tmp_path: Path, side: int, value: float) -> None:
    tensors = load_file(odd[side] / SINGLE)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name].view(-1)[[3, 17, 20]] = value
    save_file(tensors, odd[side] / SINGLE)
    for act in (lambda: diff(*odd), lambda: restore(*odd, ["0.5"], tmp_path / "out")):
        with pytest.raises(InputError, match=rf"{odd[side].name}/{SINGLE}: tensor '{name}' holds 3 NaN or infinite"):
            act()
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
