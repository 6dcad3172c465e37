"""Patches make what restore writes, and take it back, byte for byte; on any other model they refuse."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import weights_twin as twin
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from knowshift.errors import InputError
from knowshift.weights import patch
from knowshift.weights.restore import restore

CASES = [
    ("llama", "bf16", False),
    ("llama-untied", "fp16", True),
    ("gpt2", "fp32", True),
    ("qwen2", "bf16", True),
    ("gemma3", "fp32", False),
    ("mixtral", "bf16", True),
]


def cut(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Tensors go through in tiles of ``size`` elements, and a patch written now has blocks of as many."""
    monkeypatch.setattr("knowshift.weights.walk.TILE", size)
    monkeypatch.setattr("knowshift.weights.patch.write.TILE", size)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 97)


def data(folder: Path) -> dict[str, bytes]:
    """Every weight file and index, byte for byte."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if ".safetensors" in path.name}


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(("architecture", "dtype", "sharded"), CASES)
def test_applied_it_is_what_restore_writes_reverted_it_is_tuned(
    pair_of, small_blocks, tmp_path: Path, architecture: str, dtype: str, sharded: bool
) -> None:
    base, tuned = pair_of(architecture, dtype, sharded)
    fractions = ["0", "0.03", "0.3", "1"]
    folders = restore(base, tuned, fractions, tmp_path / "out")
    patches = restore(base, tuned, fractions, tmp_path / "out", patch=True)
    assert [path.name for path in patches] == [f"{fraction}.patch" for fraction in fractions]
    for folder, file in zip(folders, patches, strict=True):
        made = patch.apply(file, tuned, tmp_path / "made" / folder.name)
        assert data(made) == data(folder)
        assert listing(made) == listing(folder)
        assert (made / "README.md").read_text() == (folder / "README.md").read_text()
        assert twin.same_bits(twin.load(made), twin.restored(base, tuned, folder.name))
        again = patch.revert(file, made, tmp_path / "again" / folder.name)
        assert data(again) == data(tuned)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_holds_each_difference_once_and_nothing_else(pair_of, small_blocks, tmp_path: Path, dtype: str) -> None:
    """The slow twin: places and differences straight from the two checkpoints."""
    base, tuned = pair_of("qwen2", dtype)
    (file,) = restore(base, tuned, ["0.4"], tmp_path, patch=True, rank="absolute", region="all")
    (folder,) = restore(base, tuned, ["0.4"], tmp_path, rank="absolute", region="all")
    before, after = twin.load(tuned), twin.load(folder)
    opened = patch.Patch(file)
    assert [entry.name for entry in opened.manifest.tensors] == list(before)
    for entry in opened.manifest.tensors:
        width = before[entry.name].element_size()
        old, new = (side[entry.name].reshape(-1).view(twin.BITS[before[entry.name].dtype]) for side in (before, after))
        changed = (old != new).nonzero().squeeze(1)
        assert entry.changed == changed.numel()
        assert entry.shape == tuple(before[entry.name].shape)
        places, steps = [], []
        for number in range(opened.manifest.blocks(entry) if entry.changed else 0):
            where, what = opened.differences(entry, number)
            places += (where + number * opened.manifest.block).tolist()
            steps += what.tolist()
        assert places == changed.tolist()
        wanted = (new[changed].long() - old[changed].long()) % (1 << 8 * width)
        assert steps == wanted.tolist()
        for side, value in (("tuned", old), ("restored", new)):
            raw, step = value.numpy().tobytes(), opened.manifest.block * width
            leaves = [hashlib.sha256(raw[start : start + step]).digest() for start in range(0, len(raw), step)]
            assert getattr(entry, side) == hashlib.sha256(b"".join(leaves)).hexdigest()


@pytest.mark.parametrize("settings", [{"rank": "random", "seed": 3}, {"of": "changed"}, {"arithmetic": "bfloat16"}])
def test_any_restoration_can_be_a_patch(pair_of, tmp_path: Path, settings: dict) -> None:
    base, tuned = pair_of("llama-untied", "bf16")
    for region in ("mlp", "embeddings", "all"):
        (file,) = restore(base, tuned, [0.25], tmp_path, patch=True, region=region, **settings)
        (folder,) = restore(base, tuned, [0.25], tmp_path, region=region, **settings)
        assert data(patch.apply(file, tuned, tmp_path / "made")) == data(folder)
        assert data(patch.revert(file, folder, tmp_path / "again")) == data(tuned)


def test_models_cut_into_files_in_another_way(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "bf16", True)
    (file,) = restore(base, tuned, [0.2], tmp_path, patch=True)
    (folder,) = restore(base, tuned, [0.2], tmp_path)
    for name, source in (("tuned", tuned), ("restored", folder)):
        AutoModelForCausalLM.from_pretrained(source, dtype="auto").save_pretrained(tmp_path / name)
        assert not (tmp_path / name / "model.safetensors.index.json").exists()
    made = patch.apply(file, tmp_path / "tuned", tmp_path / "made")
    assert twin.same_bits(dict(sorted(twin.load(made).items())), dict(sorted(twin.load(folder).items())))
    again = patch.revert(file, tmp_path / "restored", tmp_path / "again")
    assert twin.same_bits(dict(sorted(twin.load(again).items())), dict(sorted(twin.load(tuned).items())))


def test_tiles_of_another_size_than_the_blocks(pair_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = pair_of("gpt2", "fp16")
    (folder,) = restore(base, tuned, [0.2], tmp_path)
    for written, read in ((128, 100), (100, 128), (97, 1 << 17), (1 << 17, 700)):
        cut(monkeypatch, written)
        (file,) = restore(base, tuned, [0.2], tmp_path, patch=True)
        cut(monkeypatch, read)
        assert data(patch.apply(file, tuned, tmp_path / "made")) == data(folder)


def test_the_same_every_time(pair_of, small_blocks, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "bf16", True)
    first = restore(base, tuned, [0.1, 0.2], tmp_path, patch=True)[1].read_bytes()
    assert restore(base, tuned, [0.2], tmp_path, patch=True)[0].read_bytes() == first  # its own may be replaced


def test_says_which_side_a_model_is_on(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "bf16", True)
    (file,) = restore(base, tuned, [0.2], tmp_path, patch=True, base_name="org/base", tuned_name="org/tuned")
    (folder,) = restore(base, tuned, [0.2], tmp_path)
    out = tmp_path / "made"
    with pytest.raises(InputError, match="already applied: it holds the restored weights"):
        patch.apply(file, folder, out)
    with pytest.raises(InputError, match="nothing to revert: it holds the weights from before"):
        patch.revert(file, tuned, out)
    with pytest.raises(InputError, match=r"and \d+ more neither as before nor as after .* made for 'org/tuned'"):
        patch.apply(file, base, out)
    other = restore(base, tuned, [0.1], tmp_path)[0]
    with pytest.raises(InputError, match="neither as before"):
        patch.revert(file, other, out)
    mixed = shutil.copytree(tuned, tmp_path / "mixed")
    shard = sorted(path.name for path in data_files(folder) if b"q_proj" in path.read_bytes())[0]
    shutil.copyfile(folder / shard, mixed / shard)
    for turn in (patch.apply, patch.revert):
        with pytest.raises(InputError, match="between the two sides"):
            turn(file, mixed, out)
    assert not out.exists()


def data_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix == ".safetensors"]


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"]
)
def test_one_bit_of_any_tensor_is_noticed(pair_of, tmp_path: Path, name: str) -> None:
    """In a tensor that the patch changes or in one that it leaves alone."""
    base, tuned = pair_of()
    (file,) = restore(base, tuned, [0.01], tmp_path, patch=True)
    changed = shutil.copytree(tuned, tmp_path / "changed")
    tensors = load_file(tuned / "model.safetensors")
    tensors[name].view(torch.int16).view(-1)[-1] ^= 1
    save_file(tensors, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"tensor '{name}' neither as before nor as after"):
        patch.apply(file, changed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_tensors_are_named(pair_of, tmp_path: Path) -> None:
    (file,) = restore(*pair_of(), [0.1], tmp_path, patch=True)
    cases = [
        (pair_of("llama-untied")[1], r"tensor 'lm_head\.weight' not in the patch"),
        (pair_of("qwen2")[1], r"tensors '\S+_proj\.bias', .* and 3 more not in the patch"),
        (pair_of("gpt2")[1], r"tensors 'model\.\S+', .* missing, which the patch has"),
        (pair_of("llama", "fp32")[1], r"is F32 of shape .* in the patch it is BF16"),
    ]
    for model, fault in cases:
        with pytest.raises(InputError, match=fault):
            patch.apply(file, model, tmp_path / "out")


def test_what_is_read_is_not_written_over(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()
    tuned = shutil.copytree(tuned, tmp_path / "tuned")
    (file,) = restore(base, tuned, [0.1], tmp_path / "out", patch=True)
    with pytest.raises(InputError, match=r"out: cannot be written: it holds .*0\.1\.patch"):
        patch.apply(file, tuned, tmp_path / "out")
    with pytest.raises(InputError, match="being read"):
        patch.apply(file, tuned, tuned)
    with pytest.raises(InputError, match="being read"):
        restore(base, tuned, [0.1], tuned, patch=True)
    (tmp_path / "0.1.patch").write_text("--- a\n+++ b\n")
    with pytest.raises(InputError, match="not written by knowshift"):
        restore(base, tuned, [0.1], tmp_path, patch=True)
    (tmp_path / "0.2.patch").mkdir()
    with pytest.raises(InputError, match="not written by knowshift"):
        restore(base, tuned, [0.2], tmp_path, patch=True)
    assert (tmp_path / "0.1.patch").read_text() == "--- a\n+++ b\n"


def test_checks_the_room_on_the_disk_first(pair_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = pair_of()
    (file,) = restore(base, tuned, [0.1], tmp_path, patch=True)
    monkeypatch.setattr("shutil.disk_usage", lambda place: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(InputError, match=r"up to .* GB are needed"):
        restore(base, tuned, [0.1, 0.2], tmp_path / "out", patch=True)
    with pytest.raises(InputError, match="GB are needed"):
        patch.apply(file, tuned, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_never_takes_more_than_the_room_it_asked_for(pair_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights at random are the worst case; what is said of the model comes on top of the weights."""
    asked = []
    monkeypatch.setattr("knowshift.weights.patch.write._check_room", lambda targets, most, width: asked.extend(most))
    base, _ = pair_of("llama", "fp32")
    for seed in (1, 2):
        shutil.copytree(base, tmp_path / str(seed))
        tensors = {
            name: torch.randn(value.shape, generator=torch.Generator().manual_seed(seed)).to(value.dtype)
            for name, value in load_file(base / "model.safetensors").items()
        }
        save_file(tensors, tmp_path / str(seed) / "model.safetensors", metadata={"format": "pt"})
    for fraction in (0.1, 0.9):
        (file,) = restore(tmp_path / "1", tmp_path / "2", [fraction], tmp_path, patch=True, rank="random")
        opened = patch.Patch(file)
        blocks = int(opened._ends[-1])
        assert sum(entry.changed for entry in opened.manifest.tensors) <= asked[-1]
        assert blocks <= 5 * asked[-1] + 100 * opened._index.shape[0]


def test_leaves_nothing_when_writing_fails(pair_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("knowshift.weights.patch.write.Writer.add", full)
    with pytest.raises(InputError, match="disk filled up"):
        restore(*pair_of(), [0.1, 0.2], tmp_path / "out", patch=True)
    assert not list((tmp_path / "out").iterdir())


KILLED = """
import sys, time
from pathlib import Path
from knowshift.weights import output, patch
from knowshift.weights.patch.container import Writer
from knowshift.weights.restore import restore
def slowly(function):
    def slow(*arguments):
        print("writing", flush=True)
        time.sleep(0.1)
        return function(*arguments)
    return slow
Writer.add, output._write = slowly(Writer.add), slowly(output._write)
base, tuned, out = map(Path, sys.argv[2:])
if sys.argv[1] == "restore":
    restore(base, tuned, [0.2, 0.5], out, patch=True)
else:
    patch.apply(base, tuned, out)
"""


@pytest.mark.parametrize("command", ["restore", "apply"])
def test_killed_it_leaves_nothing_and_the_same_command_completes(pair_of, tmp_path: Path, command: str) -> None:
    base, tuned = pair_of()
    first, out = base, tmp_path / "out"
    if command == "apply":
        (first,) = restore(base, tuned, [0.2], tmp_path, patch=True)
        out = out / "made"
    arguments = [sys.executable, "-c", KILLED, command, str(first), str(tuned), str(out)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline().startswith("writing")
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
    left = list((tmp_path / "out").iterdir())
    assert left and all(path.name.startswith(".") for path in left)
    if command == "apply":
        assert twin.same_bits(twin.load(patch.apply(first, tuned, out)), twin.restored(base, tuned, 0.2))
        return
    for file in restore(base, tuned, [0.2, 0.5], out, patch=True):
        made = patch.apply(file, tuned, tmp_path / "made")
        assert twin.same_bits(twin.load(made), twin.restored(base, tuned, file.stem))


def test_describes_itself(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("qwen2", "bf16", True)
    names = {"base_name": "org/base", "tuned_name": "my tuned"}
    (file,) = restore(base, tuned, ["0.20"], tmp_path, patch=True, region="attention", of="changed", **names)
    facts = patch.describe(file)
    before, after = twin.load(tuned), twin.load(patch.apply(file, tuned, tmp_path / "made"))
    changed = {name: int((before[name].view(torch.int16) != after[name].view(torch.int16)).sum()) for name in before}
    assert facts["changed"] == sum(changed.values()) > 0
    assert facts["parameters"] == sum(value.numel() for value in before.values())
    assert facts["bytes"] == file.stat().st_size
    assert (facts["base"], facts["tuned"]) == ("org/base", "my tuned")
    assert facts["settings"]["fraction"] == "0.20" and facts["settings"]["of"] == "changed"
    assert facts["settings"]["restored"] == facts["changed"]  # of the changed elements each one counts
    assert facts["command"][:5] == ["knowshift", "restore", "org/base", "my tuned", "--fraction"]
    rows = {(row["layer"], row["module"]): row["changed"] for row in facts["modules"]}
    for layer in (0, 1):
        for module in "qkvo":
            own = [name for name in before if f"layers.{layer}.self_attn.{module}_proj." in name]
            assert rows[layer, module] == sum(changed[name] for name in own)
    assert sum(rows.values()) == facts["changed"]
    shown = patch.render(facts)
    assert f"{facts['changed']:,} of {facts['parameters']:,} weights" in shown and "'my tuned'" in shown
    # The digest of a side is of its content: the same patch side from a model in one file.
    (again,) = restore(base, patch.apply(file, tuned, tmp_path / "next"), [0], tmp_path, patch=True)
    assert patch.describe(again)["tuned_digest"] == facts["restored_digest"] != facts["tuned_digest"]


def test_what_is_shown_moves_no_cursor(pair_of, tmp_path: Path) -> None:
    (file,) = restore(*pair_of(), [0.1], tmp_path, patch=True, base_name="\x1b[2J\nall fine", tuned_name="a\u202eb")
    shown = patch.render(patch.describe(file))
    assert "\x1b" not in shown and "\u202e" not in shown and "\nall fine" not in shown
    assert r"\x1b[2J\nall fine" in shown


def test_zero_size_and_scalar_tensors(tmp_path: Path) -> None:
    for name, shift in (("base", 0.0), ("tuned", 0.5)):
        tensors = {
            "model.layers.0.self_attn.q_proj.weight": torch.arange(6.0).view(2, 3) + shift,
            "model.layers.0.mlp.up_proj.weight": torch.tensor(1.0 + shift),
            "model.layers.0.mlp.down_proj.weight": torch.empty(0, 4),
            "model.embed_tokens.weight": torch.ones(2),
            "steps": torch.tensor([3]),
        }
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / name / "config.json").write_text("{}")
    (file,) = restore(tmp_path / "base", tmp_path / "tuned", [1], tmp_path, patch=True)
    (folder,) = restore(tmp_path / "base", tmp_path / "tuned", [1], tmp_path)
    assert data(patch.apply(file, tmp_path / "tuned", tmp_path / "made")) == data(folder)
    assert data(patch.revert(file, folder, tmp_path / "again")) == data(tmp_path / "tuned")
    assert sum(entry.changed for entry in patch.Patch(file).manifest.tensors) == 7


def test_sources_are_left_as_they_were(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "bf16", True)
    before = data(base), data(tuned)
    (file,) = restore(base, tuned, [0.5], tmp_path, patch=True)
    raw = file.read_bytes()
    patch.apply(file, tuned, tmp_path / "made")
    assert (data(base), data(tuned), file.read_bytes()) == (*before, raw)


def test_importing_needs_no_torch() -> None:
    code = "import sys, knowshift.weights.patch; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_differences_add_up_in_every_type() -> None:
    """Adding and taking away are of stored bits, so infinities and NaN come back as they were."""
    from knowshift.weights.patch.codec import decode, encode

    before = np.array([0x7F80, 0xFF80, 0x7FC1, 0x8000, 0x0000, 0xFFFF], np.uint16)
    after = before[::-1].copy()
    count, packed = encode(before, after)
    places, steps = decode(packed, count, before.size, 2)
    before[places] += steps
    assert (before == after).all()


@pytest.mark.parametrize("rows", [(40, 61), (61, 40)])
def test_a_resized_vocabulary(small_blocks, tmp_path: Path, rows: tuple[int, int]) -> None:
    """Rows that only the tuned model has lie behind those that are compared: they are copied and checked."""
    for name, count, seed in (("base", rows[0], 0), ("tuned", rows[1], 1)):
        random = torch.Generator().manual_seed(seed)
        tensors = {
            "model.embed_tokens.weight": torch.randn(count, 8, generator=random),
            "model.layers.0.mlp.up_proj.weight": torch.randn(8, 8, generator=random),
        }
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / name / "config.json").write_text("{}")
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    (file,) = restore(base, tuned, [0.5], tmp_path, patch=True, region="all")
    (folder,) = restore(base, tuned, [0.5], tmp_path, region="all")
    made = patch.apply(file, tuned, tmp_path / "made")
    before, expected, found = (load_file(place / "model.safetensors") for place in (tuned, folder, made))
    common = min(rows)
    for name, value in found.items():
        assert torch.equal(value[:common], expected[name][:common])
        assert torch.equal(value[common:], before[name][common:])
    assert not torch.equal(found["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    assert data(patch.revert(file, made, tmp_path / "again")) == data(tuned)
    tensors = load_file(tuned / "model.safetensors")
    tensors["model.embed_tokens.weight"][-1, -1] += 1
    save_file(tensors, tuned / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"'model\.embed_tokens\.weight' neither as before"):
        patch.apply(file, tuned, tmp_path / "made")
