"""Pairs of checkpoints that differ in vocabulary, types, wrappers and ties."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import weights_twin as twin
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.weights.checkpoint import SINGLE, Checkpoint
from knowshift.weights.diff import diff
from knowshift.weights.merge import METHODS, merge
from knowshift.weights.pairing import pair
from knowshift.weights.patch import apply, revert
from knowshift.weights.restore import restore
from knowshift.weights.sweep import Sweep

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def rewritten(source: Path, folder: Path, change) -> Path:
    """A copy of a checkpoint whose tensors ``change`` was let loose on."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / SINGLE, {"format": "pt"})
    return folder


def resized(source: Path, folder: Path, rows: int) -> Path:
    """A copy with another number of rows in embeddings and head; new rows are no copies of anything."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in {EMBEDDINGS, HEAD} & tensors.keys():
            new = torch.full((rows, tensors[name].shape[1]), 0.3125).to(tensors[name].dtype)
            common = min(rows, len(tensors[name]))
            new[:common] = tensors[name][:common]
            tensors[name] = new

    rewritten(source, folder, change)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    return folder


def opened(*folders: Path) -> list[Checkpoint]:
    return [Checkpoint.open(folder) for folder in folders]


@pytest.fixture(params=["grown", "shrunk", "base grown"])
def uneven(request, pair_of, tmp_path: Path) -> tuple[Path, Path, int, int]:
    """Base and tuned with different vocabularies, and the rows of each."""
    base, tuned = pair_of("llama-untied")
    if request.param == "base grown":
        return resized(base, tmp_path / "resized", 416), tuned, 416, 400
    rows = 408 if request.param == "grown" else 390
    return base, resized(tuned, tmp_path / "resized", rows), 400, rows


@pytest.mark.parametrize("region", ["embeddings", "all"])
def test_common_rows_are_compared_and_the_others_named(uneven, region: str) -> None:
    base, tuned, before, after = uneven
    pairs, notes = pair(*opened(base, tuned), region)
    common = min(before, after)
    for name in (EMBEDDINGS, HEAD):
        (entry,) = [entry for entry in pairs if entry.name == name]
        assert entry.shape == (common, 32) and entry.size == common * 32
        bits = load_file(base / SINGLE)[name][:common].reshape(-1).view(torch.int16).numpy().view(np.uint16)
        assert np.array_equal(entry.base_bits(0, entry.size), bits)
        (note,) = [note for note in notes if name in note]
        assert f"[{before}, 32] in base and [{after}, 32] when tuned: the first {common} rows" in note
        assert ("stay tuned" in note) == (after > before) and f"other {abs(after - before)} " in note


@pytest.mark.parametrize("rank", ["relative", "random"])
def test_restoring_resized_embeddings_leaves_the_other_rows_alone(uneven, tmp_path: Path, rank: str) -> None:
    base, tuned, before, after = uneven
    common = min(before, after)
    none, half, everything = restore(base, tuned, ["0", "0.5", "1"], tmp_path / "out", rank=rank, region="embeddings")
    assert (none / SINGLE).read_bytes() == (tuned / SINGLE).read_bytes()
    old, new = load_file(base / SINGLE), load_file(tuned / SINGLE)
    taken = 0
    for name, tensor in load_file(half / SINGLE).items():
        whole = load_file(everything / SINGLE)[name]
        if name not in (EMBEDDINGS, HEAD):
            assert torch.equal(tensor, new[name]) and torch.equal(whole, new[name])
            continue
        assert torch.equal(tensor[common:], new[name][common:]) and torch.equal(whole[common:], new[name][common:])
        assert torch.equal(whole[:common], old[name][:common])
        from_base = tensor[:common] == old[name][:common]
        assert (from_base | (tensor[:common] == new[name][:common])).all()
        taken += int(from_base.sum())
    same = sum(int((old[name][:common] == new[name][:common]).sum()) for name in (EMBEDDINGS, HEAD))
    assert common * 32 <= taken <= common * 32 + same


def test_diff_and_merge_of_resized_embeddings(uneven, tmp_path: Path) -> None:
    base, tuned, before, after = uneven
    common = min(before, after)
    result = diff(base, tuned, region="embeddings")
    assert result.metrics["parameters"] == 2 * 32 * common
    old, new = load_file(base / SINGLE), load_file(tuned / SINGLE)
    changed = sum(int((old[name][:common] != new[name][:common]).sum()) for name in (EMBEDDINGS, HEAD))
    assert result.metrics["changed"] == changed
    assert any(EMBEDDINGS in warning for warning in result.metrics["warnings"])
    mixed = load_file(merge("interpolate", base, tuned, tmp_path / "out", alpha=0.0) / SINGLE)
    for name, tensor in new.items():
        rows = common if name in (EMBEDDINGS, HEAD) else len(tensor)
        assert torch.equal(mixed[name], torch.cat([old[name][:rows], tensor[rows:]])), name


def test_only_rows_of_a_vocabulary_may_differ(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama-untied")
    wide = rewritten(tuned, tmp_path / "wide", lambda tensors: tensors.update({HEAD: torch.zeros(400, 16)}))
    with pytest.raises(InputError, match=r"'lm_head.weight' has shape \[400, 32\] in base and \[400, 16\]"):
        pair(*opened(base, wide), "blocks")
    flat = rewritten(tuned, tmp_path / "flat", lambda tensors: tensors.update({HEAD: torch.tensor(0.0)}))
    with pytest.raises(InputError, match=r"'lm_head.weight' has shape \[400, 32\] in base and \[\]"):
        pair(*opened(base, flat), "blocks")


TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@pytest.mark.parametrize(("left", "right"), list(itertools.product(TYPES, TYPES)))
def test_types_may_differ_and_it_is_said(pair_of, tmp_path: Path, left: str, right: str) -> None:
    folders = []
    for folder, kind in zip(pair_of("llama", "fp32"), (left, right), strict=True):
        target = TYPES[kind]

        def change(tensors: dict[str, torch.Tensor], target: torch.dtype = target) -> None:
            tensors.update({name: tensor.to(target) for name, tensor in tensors.items()})

        folders.append(rewritten(folder, tmp_path / f"{folder.name}-{kind}", change))
    base, tuned = folders
    _, notes = pair(*opened(base, tuned), "blocks")
    if left == right:
        assert not notes
    else:
        how = "exactly as" if right == "F32" else "rounded to"
        (note,) = notes
        assert note.endswith(f"and 11 more: stored as {left} in base, compared {how} {right}, the tuned type")
    everything, part = restore(base, tuned, ["1", "0.3"], tmp_path / "out")
    old = {name: tensor.to(TYPES[right]) for name, tensor in load_file(base / SINGLE).items()}
    for name, tensor in load_file(everything / SINGLE).items():
        assert tensor.dtype == TYPES[right]
        expected = old[name] if twin.is_block_matrix(name) else load_file(tuned / SINGLE)[name]
        assert torch.equal(tensor.view(twin.BITS[tensor.dtype]), expected.view(twin.BITS[tensor.dtype])), name
    # The slow twin ranks base's values as the tuned type holds them.
    cast = rewritten(base, tmp_path / "cast", lambda tensors: tensors.update(old))
    assert twin.same_bits(load_file(part / SINGLE), twin.restored(cast, tuned, "0.3"))


def test_a_value_beyond_the_tuned_type_is_refused(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "fp16")
    name = "model.layers.0.mlp.up_proj.weight"

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name].float()
        tensors[name][0, :2] = 1e5

    large = rewritten(base, tmp_path / "large", change)
    with pytest.raises(InputError, match=f"'{name}' holds 2 NaN or infinite"):
        diff(large, tuned)


QUANTIZED = {
    "fp8 e4m3": ("F8_E4M3", lambda tensor: {"weight": tensor.to(torch.float8_e4m3fn)}),
    "fp8 e5m2": ("F8_E5M2", lambda tensor: {"weight": tensor.to(torch.float8_e5m2)}),
    "fp8 with scales": (
        "F8_E4M3",
        lambda tensor: {"weight": tensor.to(torch.float8_e4m3fn), "weight_scale_inv": torch.ones(1)},
    ),
    "bitsandbytes int8": ("I8", lambda tensor: {"weight": tensor.to(torch.int8), "SCB": torch.ones(64)}),
    "bitsandbytes nf4": (
        "U8",
        lambda tensor: {"weight": torch.zeros(1024, 1, dtype=torch.uint8), "weight.absmax": torch.ones(4)},
    ),
    "gptq": (
        "I32",
        lambda tensor: {
            "qweight": torch.zeros(4, 64, dtype=torch.int32),
            "qzeros": torch.zeros(1, 8, dtype=torch.int32),
            "scales": torch.ones(1, 64).half(),
        },
    ),
}


@pytest.mark.parametrize("sides", ["tuned", "base", "both"])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_weights_are_refused_with_what_to_do(pair_of, tmp_path: Path, kind: str, sides: str) -> None:
    stored, quantize = QUANTIZED[kind]
    stem = "model.layers.1.mlp.up_proj."

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({stem + name: tensor for name, tensor in quantize(tensors.pop(stem + "weight")).items()})

    base, tuned = pair_of()
    if sides in ("base", "both"):
        base = rewritten(base, tmp_path / "base", change)
    if sides in ("tuned", "both"):
        tuned = rewritten(tuned, tmp_path / "tuned", change)
    with pytest.raises(InputError, match=rf"tensor '{stem}\w+' is stored as {stored}.*dequantize\(\)") as caught:
        pair(*opened(base, tuned), "blocks")
    assert (tuned if sides == "tuned" else base).name in str(caught.value) or sides == "both"


def test_counters_are_no_weights(pair_of, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embeddings.position_ids"] = torch.arange(8)
        tensors["model.steps"] = torch.zeros(1, dtype=torch.int32)
        tensors["model.layers.0.seen"] = torch.zeros((), dtype=torch.int64)

    base, tuned = (rewritten(folder, tmp_path / folder.name, change) for folder in pair_of())
    plain, _ = pair(*opened(*pair_of()), "all")
    pairs, notes = pair(*opened(base, tuned), "all")
    assert [entry.name for entry in pairs] == [entry.name for entry in plain] and not notes


WRAPPED = {
    "": lambda name: name,
    "bare": lambda name: name.removeprefix("model."),
    "multimodal": lambda name: name.replace("model.", "model.language_model.", 1),
    "multimodal, older": lambda name: f"language_model.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "compiled blocks": lambda name: name.replace(".self_attn.", "._orig_mod.self_attn."),
    "fsdp": lambda name: "_fsdp_wrapped_module." + name.replace(".mlp.", "._fsdp_wrapped_module.mlp."),
    "data parallel": lambda name: f"module.{name}",
    "peft": lambda name: f"base_model.model.{name}",
}


@pytest.mark.parametrize("side", ["base", "tuned"])
@pytest.mark.parametrize("wrapper", list(WRAPPED)[1:])
def test_wrapped_names_on_either_side(pair_of, tmp_path: Path, wrapper: str, side: str) -> None:
    wrap = WRAPPED[wrapper]

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[wrap(name)] = tensors.pop(name)

    base, tuned = pair_of("llama-untied")
    plain, _ = pair(*opened(base, tuned), "all")
    folders = {"base": base, "tuned": tuned}
    folders[side] = rewritten(folders[side], tmp_path / "wrapped", change)
    pairs, notes = pair(*opened(folders["base"], folders["tuned"]), "all")
    assert not notes
    partners = {entry.name if side == "base" else entry.base.name: entry for entry in pairs}
    assert partners.keys() == {entry.name for entry in plain}
    for entry in plain:
        other = partners[entry.name]
        assert wrap(entry.name) == (other.base.name if side == "base" else other.name)
        assert other.place == entry.place
    (written,) = restore(folders["base"], folders["tuned"], ["0.2"], tmp_path / "out")
    expected = twin.restored(base, tuned, "0.2")
    names = {name: wrap(name) if side == "tuned" else name for name in expected}
    tensors = load_file(written / SINGLE)
    # Which of equally ranked elements go back first depends on the order of the names, how many does not.
    matrices = [name for name in expected if twin.is_block_matrix(name)]
    before = twin.load(base)
    count = [sum(int((part[of(name)] == before[name]).sum()) for name in matrices)
             for part, of in ((tensors, names.__getitem__), (expected, str))]  # fmt: skip
    assert abs(count[0] - count[1]) < 50


def test_missing_and_extra_are_both_named_and_counted(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".layers.1." in name]:
            del tensors[name]
        tensors["model.layers.0.extra.weight"] = torch.zeros(2)

    other = rewritten(tuned, tmp_path / "other", change)
    with pytest.raises(InputError) as caught:
        pair(*opened(base, other), "blocks")
    message = str(caught.value)
    assert "'model.layers.1.input_layernorm.weight'" in message and "and 6 more missing, which" in message
    assert "tensor 'model.layers.0.extra.weight' not in" in message and message.isprintable()


def test_an_adapter_that_was_saved_unmerged_is_named_as_such(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    other = rewritten(tuned, tmp_path / "other", lambda tensors: tensors.update({name: torch.zeros(2, 32)}))
    with pytest.raises(InputError, match=r"lora_A.*an adapter that was not merged"):
        pair(*opened(base, other), "blocks")


@pytest.mark.parametrize("grown", [False, True])
def test_a_head_tied_on_one_side(pair_of, tmp_path: Path, grown: bool) -> None:
    base, tuned = pair_of()

    def untie(tensors: dict[str, torch.Tensor]) -> None:
        tensors[HEAD] = tensors[EMBEDDINGS].clone() + 0.5

    untied = rewritten(tuned, tmp_path / "untied", untie)
    if grown:
        untied = resized(untied, tmp_path / "grown", 410)
    pairs, notes = pair(*opened(base, untied), "embeddings")
    assert {entry.name: entry.base.name for entry in pairs} == {EMBEDDINGS: EMBEDDINGS, HEAD: EMBEDDINGS}
    assert any("to which base ties it" in note for note in notes) and len(notes) == (3 if grown else 1)
    (written,) = restore(base, untied, ["1"], tmp_path / "out", region="embeddings")
    tensors = load_file(written / SINGLE)
    for name in (HEAD, EMBEDDINGS):
        assert torch.equal(tensors[name][:400], load_file(base / SINGLE)[EMBEDDINGS])
    pairs, notes = pair(*opened(untied, tuned), "embeddings")
    assert [entry.name for entry in pairs] == [EMBEDDINGS] and "the tuned model ties it" in notes[0]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (r"re:layers\.1\.mlp\.", 3),
        (r"re:(up|down)_proj\.weight$", 4),
        (r"re:norm", 5),
        (r"re:^model\.embed_tokens", 1),
        (r"re:", 20),
        (r"re:LAYERS", 0),
        (r"re:(?i)LAYERS", 18),
    ],
)
def test_a_region_as_a_regular_expression(pair_of, tmp_path: Path, expression: str, expected: int) -> None:
    base, tuned = pair_of()
    if not expected:
        with pytest.raises(InputError, match=r"--region re:LAYERS: .* has no weights there"):
            pair(*opened(base, tuned), expression)
        return
    pairs, _ = pair(*opened(base, tuned), expression)
    assert len(pairs) == expected
    (written,) = restore(base, tuned, ["1"], tmp_path / "out", region=expression)
    inside = {entry.name for entry in pairs}
    for name, tensor in load_file(written / SINGLE).items():
        source = base if name in inside else tuned
        assert torch.equal(tensor, load_file(source / SINGLE)[name]), name


@pytest.mark.parametrize("expression", ["re:(", "re:*", "re:[z-a]", "re:(?P<1>x)", "re:a{9999999999999999999999}"])
def test_what_is_no_regular_expression_names_the_flag(pair_of, expression: str) -> None:
    with pytest.raises(InputError, match=r"--region re:.*not a regular expression"):
        pair(*opened(*pair_of()), expression)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ("re:(", "not a regular expression"),
        ("everything", "must be one of blocks, attention, mlp, embeddings, all, or"),
    ],
)
def test_the_command_line_refuses_a_region_before_it_looks_for_models(tmp_path: Path, capsys, region, words) -> None:
    assert main(["diff", "/no/base", "/no/tuned", "--region", region, "--out", str(tmp_path / "out")]) == 2
    assert f"--region {region}: {words}" in capsys.readouterr().err


def test_the_command_line_takes_a_regular_expression(pair_of, tmp_path: Path, capsys) -> None:
    base, tuned = map(str, pair_of())
    out = str(tmp_path / "out")
    assert main(["restore", base, tuned, "--fraction", "1", "--region", r"re:layers\.0\.mlp", "--out", out]) == 0
    written, old, new = (load_file(Path(folder) / SINGLE) for folder in (f"{out}/1", base, tuned))
    for name, tensor in written.items():
        assert torch.equal(tensor, (old if ".layers.0.mlp" in name.replace("model", "") else new)[name]), name
    assert r"--region 're:layers\.0\.mlp'" in Path(out, "1", "README.md").read_text()


OPTIONS = {
    "interpolate": {"alpha": 0.25},
    "random": {"fraction": 0.5},
    "layers": {"layers": "1"},
    "modules": {"modules": "embed_tokens"},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_rows_of_one_side_alone(uneven, tmp_path: Path, method: str) -> None:
    base, tuned, before, after = uneven
    common = min(before, after)
    new = load_file(tuned / SINGLE)
    merged = load_file(merge(method, base, tuned, tmp_path / "out", **OPTIONS.get(method, {})) / SINGLE)
    assert {name: tensor.shape for name, tensor in merged.items()} == {
        name: tensor.shape for name, tensor in new.items()
    }
    for name in (EMBEDDINGS, HEAD):
        assert torch.equal(merged[name][common:], new[name][common:])
    assert any(not torch.equal(merged[name], tensor) for name, tensor in new.items())


def test_a_patch_and_a_loaded_model_leave_rows_of_one_side_alone(uneven, tmp_path: Path) -> None:
    base, tuned, _, _ = uneven
    (folder,) = restore(base, tuned, ["0.5"], tmp_path / "folders", region="all")
    (patch,) = restore(base, tuned, ["0.5"], tmp_path / "patches", region="all", patch=True)
    applied = apply(patch, tuned, tmp_path / "applied")
    assert (applied / SINGLE).read_bytes() == (folder / SINGLE).read_bytes()
    assert (revert(patch, applied, tmp_path / "reverted") / SINGLE).read_bytes() == (tuned / SINGLE).read_bytes()
    model = AutoModelForCausalLM.from_pretrained(tuned, dtype="auto")
    with Sweep(model, base, tuned, region="all").restored("relative", "0.5"):
        for name, tensor in load_file(folder / SINGLE).items():
            assert torch.equal(model.get_parameter(name), tensor), name
