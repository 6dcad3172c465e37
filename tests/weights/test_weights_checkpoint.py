"""Opening checkpoint folders and pairing their tensors."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import weights_twin as twin
from safetensors.torch import load_file, save_file

from knowshift.errors import InputError
from knowshift.weights.checkpoint import INDEX, Checkpoint
from knowshift.weights.pairing import pair


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_gives_every_tensor_bit_for_bit_in_order(pair_of, dtype: str, sharded: bool) -> None:
    _, tuned = pair_of("llama", dtype, sharded)
    opened, expected = Checkpoint.open(tuned), twin.load(tuned)
    assert list(opened.tensors) == list(expected)
    for name, tensor in expected.items():
        bits = tensor.view(twin.BITS[tensor.dtype]).numpy().reshape(-1)
        read = opened.read(name)
        assert opened.tensors[name].shape == tuple(tensor.shape)
        assert np.array_equal(read.view(bits.dtype), bits)
        assert np.array_equal(opened.read(name, 3, 9), read[3:9])
        assert not read.flags.writeable


def test_follows_symbolic_links_as_the_hub_cache_has_them(pair_of, tmp_path: Path) -> None:
    _, tuned = pair_of()
    (tmp_path / "model.safetensors").symlink_to(tuned / "model.safetensors")
    assert list(Checkpoint.open(tmp_path).tensors) == list(Checkpoint.open(tuned).tensors)


def test_says_what_to_do_without_safetensors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        Checkpoint.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        Checkpoint.open(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*save_pretrained"):
        Checkpoint.open(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="adapter"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 3, None, "a\\b.safetensors", "model.bin"]
)
def test_refuses_shards_outside_of_the_folder(pair_of, tmp_path: Path, shard: object) -> None:
    _, tuned = pair_of("llama", "bf16", True)
    folder = shutil.copytree(tuned, tmp_path / "copy")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = shard
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"index\.json: tensor 'model\.norm\.weight'"):
        Checkpoint.open(folder)


def test_refuses_an_index_and_shards_that_disagree(pair_of, tmp_path: Path) -> None:
    _, tuned = pair_of("llama", "bf16", True)
    for change, words in (
        (lambda places: places.pop("model.norm.weight"), "'model.norm.weight' is not listed"),
        (lambda places: places.update(ghost=places["model.norm.weight"]), "'ghost' is missing"),
        (lambda places: places.update(ghost="model-9.safetensors"), "no such file"),
        (lambda places: places.clear(), "weight_map"),
    ):
        folder = shutil.copytree(tuned, tmp_path / "copy")
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))
        with pytest.raises(InputError, match=words):
            Checkpoint.open(folder)
        shutil.rmtree(folder)


def test_refuses_a_tensor_in_two_shards(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({"a": torch.zeros(2), f"b{number}": torch.zeros(1)}, tmp_path / f"{number}.safetensors")
    places = {"a": "1.safetensors", "b1": "1.safetensors", "b2": "2.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(InputError, match="'a' stands in another shard"):
        Checkpoint.open(tmp_path)


def rewritten(source: Path, folder: Path, change) -> Path:
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize("missing_from", ["base", "tuned"])
def test_names_missing_and_extra_tensors(pair_of, tmp_path: Path, missing_from: str) -> None:
    base, tuned = pair_of()
    fewer = rewritten(tuned, tmp_path / "fewer", lambda tensors: tensors.pop(NAME))
    pairs = (base, fewer) if missing_from == "tuned" else (fewer, base)
    words = "missing, which" if missing_from == "tuned" else "not in"
    with pytest.raises(InputError, match=f"'{NAME}' {words}"):
        pair(*map(Checkpoint.open, pairs), "blocks")


def test_names_differently_shaped_tensors(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()
    other = rewritten(tuned, tmp_path / "other", lambda tensors: tensors.update({NAME: torch.zeros(2, 2).bfloat16()}))
    with pytest.raises(InputError, match=rf"'{NAME}' has shape \[64, 32\] in base and \[2, 2\]"):
        pair(Checkpoint.open(base), Checkpoint.open(other), "attention")


def test_resized_embeddings_do_not_stop_a_comparison_of_blocks(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()
    grown = rewritten(
        tuned,
        tmp_path / "grown",
        lambda tensors: tensors.update({"model.embed_tokens.weight": torch.zeros(408, 32).bfloat16()}),
    )
    pairs, notes = pair(Checkpoint.open(base), Checkpoint.open(grown), "blocks")
    assert len(pairs) == 14 and "embed_tokens" in notes[0]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float64])
def test_refuses_types_that_cannot_be_ranked(pair_of, tmp_path: Path, dtype: torch.dtype) -> None:
    base, tuned = pair_of()
    other = rewritten(tuned, tmp_path / "other", lambda tensors: tensors.update({NAME: tensors[NAME].to(dtype)}))
    with pytest.raises(InputError, match=f"'{NAME}' is stored as F"):
        pair(Checkpoint.open(base), Checkpoint.open(other), "blocks")


def test_matches_names_across_wrapper_prefixes(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("gpt2")

    def unwrap(tensors: dict) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)  # the causal mask that old checkpoints store

    bare = rewritten(base, tmp_path / "bare", unwrap)
    pairs, notes = pair(Checkpoint.open(bare), Checkpoint.open(tuned), "all")
    assert not notes and len(pairs) == len(Checkpoint.open(tuned).tensors)
    assert all(entry.name == f"transformer.{entry.base.name}" for entry in pairs)


def test_compares_an_untied_head_with_the_embeddings_base_ties_it_to(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()

    def untie(tensors: dict) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    untied = rewritten(tuned, tmp_path / "untied", untie)
    pairs, notes = pair(Checkpoint.open(base), Checkpoint.open(untied), "embeddings")
    assert {entry.name: entry.base.name for entry in pairs} == {
        "model.embed_tokens.weight": "model.embed_tokens.weight",
        "lm_head.weight": "model.embed_tokens.weight",
    }
    assert "ties" in notes[0]
    assert len(pair(Checkpoint.open(untied), Checkpoint.open(tuned), "embeddings")[0]) == 1


def test_empty_and_unknown_regions(pair_of, tmp_path: Path) -> None:
    base, tuned = map(Checkpoint.open, pair_of())
    with pytest.raises(InputError, match="--region nonsense"):
        pair(base, tuned, "nonsense")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_file({"model.norm.weight": torch.zeros(3)}, tmp_path / folder / "model.safetensors")
    with pytest.raises(InputError, match="--region mlp"):
        pair(Checkpoint.open(tmp_path / "a"), Checkpoint.open(tmp_path / "b"), "mlp")
