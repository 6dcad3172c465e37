"""Restored checkpoints against a slow twin, bit for bit, and what a folder must hold."""

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import weights_twin as twin
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from knowshift.errors import InputError
from knowshift.weights.restore import restore

CASES = [
    ("llama", "bf16", False),
    ("llama-untied", "fp16", True),
    ("gpt2", "fp32", True),
    ("qwen2", "bf16", True),
    ("gemma3", "fp32", False),
    ("mixtral", "bf16", True),
]


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
@pytest.mark.parametrize(("architecture", "dtype", "sharded"), CASES)
def test_equals_the_slow_twin(pair_of, small_tiles, tmp_path, architecture, dtype, sharded, arithmetic) -> None:
    base, tuned = pair_of(architecture, dtype, sharded)
    folders = restore(base, tuned, [0.03, 0.2, 0.6], tmp_path, arithmetic=arithmetic)
    assert [folder.name for folder in folders] == ["0.03", "0.2", "0.6"]
    for folder in folders:
        assert twin.same_bits(twin.load(folder), twin.restored(base, tuned, folder.name, arithmetic=arithmetic))


@pytest.mark.parametrize("order", ["top", "bottom"])
@pytest.mark.parametrize("rank", ["relative", "absolute", "base-magnitude"])
def test_every_ranking_equals_the_slow_twin(pair_of, small_tiles, tmp_path: Path, rank: str, order: str) -> None:
    base, tuned = pair_of("qwen2", "bf16", True)
    for of in ("all", "changed"):
        (folder,) = restore(base, tuned, [0.3], tmp_path, rank=rank, order=order, of=of)
        assert twin.same_bits(twin.load(folder), twin.restored(base, tuned, 0.3, rank=rank, order=order, of=of))


@pytest.mark.parametrize(("architecture", "dtype", "sharded"), CASES)
def test_nothing_is_the_tuned_model_and_all_is_base(pair_of, tmp_path: Path, architecture, dtype, sharded) -> None:
    base, tuned = pair_of(architecture, dtype, sharded)
    none, all_of_it = restore(base, tuned, ["0", "1.0"], tmp_path)
    assert (none.name, all_of_it.name) == ("0", "1.0")
    for file in tuned.glob("*.safetensors"):
        assert (none / file.name).read_bytes() == file.read_bytes()
        length = int.from_bytes(file.read_bytes()[:8], "little")
        assert (all_of_it / file.name).read_bytes()[: 8 + length] == file.read_bytes()[: 8 + length]
    before, after, found = map(twin.load, (base, tuned, all_of_it))
    assert twin.same_bits(found, {n: before[n] if twin.is_block_matrix(n) else after[n] for n in after})


@pytest.mark.parametrize("region", ["attention", "mlp", "embeddings", "all"])
def test_regions(pair_of, tmp_path: Path, region: str) -> None:
    base, tuned = pair_of("llama-untied", "bf16")
    (folder,) = restore(base, tuned, [1], tmp_path, region=region)
    before, after, found = map(twin.load, (base, tuned, folder))
    inside = {
        "attention": lambda name: "self_attn" in name,
        "mlp": lambda name: ".mlp." in name,
        "embeddings": lambda name: "embed" in name or "lm_head" in name,
        "all": lambda name: True,
    }[region]
    assert twin.same_bits(found, {name: before[name] if inside(name) else after[name] for name in after})


def test_random_restores_exactly_the_count_from_one_of_the_two(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "fp32")
    first, again, other = (
        restore(base, tuned, [0.25], tmp_path / str(run), rank="random", seed=seed)[0]
        for run, seed in enumerate((1, 1, 2))
    )
    before, after, found = map(twin.load, (base, tuned, first))
    names = [name for name in after if twin.is_block_matrix(name)]
    left, right, here = (twin.flat([side[name] for name in names]) for side in (before, after, found))
    assert ((here == left) | (here == right)).all()
    changed = int(((left != right) & (here == left)).sum())
    assert changed == pytest.approx(0.25 * int((left != right).sum()), rel=0.1)
    assert twin.same_bits(found, twin.load(again)) and not twin.same_bits(found, twin.load(other))


def test_the_folder_is_complete_and_loads(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "bf16", True)
    tuned = shutil.copytree(tuned, tmp_path / "tuned")
    for extra in (
        "training_args.bin",
        "optimizer.pt",
        "pytorch_model.bin",
        "run.json",
        "train_log.parquet",
        "README.md",
        ".hidden",
    ):
        (tuned / extra).write_text("not to be copied")
    (tuned / "LICENSE").write_text("terms")
    (tuned / "checkpoint-5").mkdir()
    (tuned / "additional_chat_templates").mkdir()
    (tuned / "additional_chat_templates" / "x.jinja").write_text("{{ x }}")
    (folder,) = restore(base, tuned, [0.2], tmp_path / "out", base_name="org/base", tuned_name="my tuned")
    kept = {
        path.name
        for path in tuned.iterdir()
        if path.name.endswith((".json", ".safetensors")) and path.name != "run.json"
    }
    assert {path.name for path in folder.iterdir()} == kept | {"LICENSE", "additional_chat_templates", "README.md"}
    assert (folder / "additional_chat_templates" / "x.jinja").read_text() == "{{ x }}"
    card = (folder / "README.md").read_text()
    assert "knowshift restore org/base 'my tuned' --fraction 0.2 " in card and "\n- knowshift\n" in card
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokens = AutoTokenizer.from_pretrained(folder)("The capital of", return_tensors="pt")
    assert model.generate(**tokens, max_new_tokens=3, do_sample=False).shape[1] > tokens["input_ids"].shape[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.2"]


@pytest.mark.parametrize("fraction", [1.5, -0.1, float("nan"), float("inf"), "x", "../0.2"])
def test_refuses_fractions_outside_of_zero_to_one(pair_of, tmp_path: Path, fraction: object) -> None:
    with pytest.raises(InputError, match="--fraction"):
        restore(*pair_of(), [0.1, fraction], tmp_path)
    assert not list(tmp_path.iterdir())


def test_never_writes_over_what_it_reads_or_what_is_not_its_own(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()
    inside = shutil.copytree(tuned, tmp_path / "0.2")
    with pytest.raises(InputError, match="being read"):
        restore(base, inside, [0.2], tmp_path)
    with pytest.raises(InputError, match="being read"):
        restore(base, inside, [0.2], inside)
    with pytest.raises(InputError, match="not written by knowshift"):
        restore(base, tuned, [0.2], tmp_path)
    assert twin.same_bits(twin.load(inside), twin.load(tuned))
    (tmp_path / "0.4").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not written by knowshift"):
        restore(base, tuned, [0.4], tmp_path)
    restore(base, tuned, [0.3], tmp_path)
    restore(base, tuned, [0.3], tmp_path, rank="absolute")  # its own may be written again
    assert twin.same_bits(twin.load(tmp_path / "0.3"), twin.restored(base, tuned, 0.3, rank="absolute"))


def test_checks_the_room_on_the_disk_first(pair_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(InputError, match="GB are needed"):
        restore(*pair_of(), [0.1, 0.2], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("patch", [False, True])
def test_what_a_killed_run_left_is_no_reason_to_refuse_the_next(pair_of, tmp_path, monkeypatch, patch: bool) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".0.2{'.patch' if patch else ''}.{platform.node()}-{gone.pid}.partial"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")

    def room(place: Path) -> object:
        return shutil._ntuple_diskusage(1, 1, 0 if left.exists() else 1 << 40)

    monkeypatch.setattr("shutil.disk_usage", room)
    (made,) = restore(*pair_of(), ["0.2"], tmp_path, patch=patch)
    assert list(tmp_path.iterdir()) == [made]


def test_leaves_nothing_when_writing_fails(pair_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(InputError, match="disk filled up"):
        restore(*pair_of(), [0.1, 0.2], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_nan_outside_of_the_region_is_copied_inside_it_is_refused(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()
    broken = shutil.copytree(tuned, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    restore(base, broken, [0.5], tmp_path / "out")
    with pytest.raises(InputError, match=r"'model\.norm\.weight' holds 1 NaN"):
        restore(base, broken, [0.5], tmp_path / "out", region="all")


def test_odd_offsets_are_read_and_written(pair_of, tmp_path: Path) -> None:
    """The format does not promise alignment: shift the data by one byte with a longer header."""
    base, tuned = pair_of("llama", "fp32")
    odd = shutil.copytree(tuned, tmp_path / "odd")
    raw = (odd / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    (odd / "model.safetensors").write_bytes(
        (length + 1).to_bytes(8, "little") + raw[8 : 8 + length] + b" " + raw[8 + length :]
    )
    (folder,) = restore(base, odd, [0.2], tmp_path / "out")
    assert twin.same_bits(twin.load(folder), twin.restored(base, tuned, 0.2))


KILLED = """
import sys, time
from pathlib import Path
from knowshift.weights import output
from knowshift.weights.restore import restore
write = output._write
def slow(*arguments):
    print("writing\\n", end="", flush=True)  # one write, so that lines of two threads stay whole
    time.sleep(0.05)
    write(*arguments)
output._write = slow
restore(*map(Path, sys.argv[1:3]), [0.2, 0.5], Path(sys.argv[3]))
"""


@pytest.mark.parametrize("writes", [1, 9, 20])
def test_killed_it_leaves_no_folder_and_the_same_command_completes(pair_of, tmp_path: Path, writes: int) -> None:
    base, tuned = pair_of()
    arguments = [sys.executable, "-c", KILLED, str(base), str(tuned), str(tmp_path / "out")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert all(process.stdout.readline().startswith("writing") for _ in range(writes))
        assert list((tmp_path / "out").iterdir())  # what is half written, under hidden names
        os.kill(process.pid, signal.SIGKILL)
    assert not [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    for folder in restore(base, tuned, [0.2, 0.5], tmp_path / "out"):
        assert twin.same_bits(twin.load(folder), twin.restored(base, tuned, folder.name))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0.2", "0.5"}


def test_sources_are_left_as_they_were(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "bf16", True)

    def digest() -> list[str]:
        files = sorted([*base.iterdir(), *tuned.iterdir()])
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

    before = digest()
    restore(base, tuned, [0.5], tmp_path)
    assert digest() == before


def test_importing_needs_no_torch() -> None:
    modules = ", ".join(f"knowshift.weights.{name}" for name in ("diff", "restore", "merge"))
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_type_of_its_own_in_each_tensor(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "bf16")
    folders = {}
    for name, source in (("base", base), ("tuned", tuned)):
        folders[name] = shutil.copytree(source, tmp_path / name)
        tensors = load_file(source / "model.safetensors")
        tensors = {
            key: value.float() if "up_proj" in key else value.half() if "q_proj" in key else value
            for key, value in tensors.items()
        }
        save_file(tensors, folders[name] / "model.safetensors", metadata={"format": "pt"})
    (folder,) = restore(folders["base"], folders["tuned"], [1], tmp_path / "out")
    before, after, found = map(twin.load, (folders["base"], folders["tuned"], folder))
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16, torch.float16, torch.float32}
    assert twin.same_bits(found, {name: before[name] if twin.is_block_matrix(name) else after[name] for name in after})
