"""Whole layers, whole modules and half of the matrices set back: which tensors, and not a bit of the others."""

from pathlib import Path

import pytest
import torch
import weights_twin as twin

from knowshift.errors import InputError
from knowshift.weights.merge import merge

ARCHITECTURES = ("llama-untied", "gpt2", "qwen2", "gemma3", "mixtral", "phi3", "olmo2")


def reset(pair: tuple[Path, Path], folder: Path) -> set[str]:
    """The tensors of ``folder`` that are base's; every other must be tuned."""
    base, tuned, found = map(twin.load, (*pair, folder))
    assert found.keys() == tuned.keys()
    back = set()
    for name, tensor in found.items():
        bits = twin.BITS[tensor.dtype]
        own = [torch.equal(tensor.view(bits), side[name].view(bits)) for side in (base, tuned)]
        assert any(own), name
        if own[0] and not own[1]:
            back.add(name)
    return back


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_goes_back_block_by_block(pair_of, tmp_path: Path, architecture: str) -> None:
    pair = pair_of(architecture)
    prefix = "transformer.h.1." if architecture == "gpt2" else "model.layers.1."
    names = set(twin.load(pair[1]))
    inside = {name for name in names if name.startswith(prefix)}
    changed = reset(pair, merge("layers", *pair, tmp_path / "all", layers="0-1", inverse=False, region="all"))
    assert {name for name in changed if name.startswith(prefix)} <= inside
    assert reset(pair, merge("layers", *pair, tmp_path / "one", layers="1")) == changed & inside
    outside = reset(pair, merge("layers", *pair, tmp_path / "rest", layers="1", inverse=True))
    assert not outside & inside and outside >= changed - inside


def test_layers_in_a_region_leaves_its_norms_tuned(pair_of, tmp_path: Path) -> None:
    pair = pair_of("llama")
    back = reset(pair, merge("layers", *pair, tmp_path / "out", layers="0", region="blocks"))
    assert back == {name for name in twin.load(pair[1]) if ".layers.0." in name and twin.is_block_matrix(name)}


@pytest.mark.parametrize(
    ("architecture", "modules", "words"),
    [
        ("llama", "down,o", ("down_proj", "o_proj")),
        ("qwen2", "q", ("q_proj",)),
        ("gpt2", "qkv, up", ("c_attn", "c_fc")),
        ("gpt2", "o", ("attn.c_proj",)),
        ("mixtral", "gate,v", (".w1.", "v_proj")),
        ("phi3", "qkv,gate_up", ("qkv_proj", "gate_up_proj")),
    ],
)
def test_modules_goes_back_with_its_bias(pair_of, tmp_path: Path, architecture, modules, words) -> None:
    pair = pair_of(architecture)
    names = set(twin.load(pair[1]))
    wanted = {name for name in names if any(word in name for word in words)}
    assert wanted and len(wanted) < len(names)
    back = reset(pair, merge("modules", *pair, tmp_path / "out", modules=modules))
    others = reset(pair, merge("modules", *pair, tmp_path / "rest", modules=modules, inverse=True))
    # Vectors of zeros, such as new biases, may be the same on both sides.
    assert back <= wanted and others <= names - wanted and len(back | others) >= 0.8 * len(names)
    assert {name for name in wanted if not name.endswith("bias")} <= back


def per_block(names: set[str], part: str) -> dict[int, int]:
    """How many weights of each block contain ``part``."""
    counts: dict[int, int] = {}
    for name in names:
        if part in name and name.endswith("weight") and (".layers." in name or ".h." in name):
            layer = int(next(segment for segment in name.split(".") if segment.isdecimal()))
            counts[layer] = counts.get(layer, 0) + 1
    return counts


def test_hft_takes_half_of_every_category(pair_of, tmp_path: Path) -> None:
    import tiny

    base = tiny.checkpoint(tmp_path / "base", "llama-untied", layers=6)
    pair = base, tiny.nudge(base, tmp_path / "tuned")
    back = reset(pair, merge("hft", *pair, tmp_path / "out", seed=3))
    assert per_block(back, "self_attn") == dict.fromkeys(range(6), 2)
    assert sorted(per_block(back, "mlp").values()) == [1, 1, 1, 2, 2, 2]
    assert per_block(back, "layernorm") == dict.fromkeys(range(6), 1)
    assert all(".layers." in name for name in back)
    rest = reset(pair, merge("hft", *pair, tmp_path / "rest", seed=3, inverse=True))
    assert not back & rest and back | rest == {name for name in twin.load(pair[1]) if ".layers." in name}
    assert reset(pair, merge("hft", *pair, tmp_path / "again", seed=3)) == back
    drawn = {frozenset(reset(pair, merge("hft", *pair, tmp_path / f"{seed}", seed=seed))) for seed in range(4)}
    assert len(drawn) == 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hft_keeps_a_weight_with_its_bias(pair_of, tmp_path: Path, architecture: str) -> None:
    pair = pair_of(architecture)
    back = reset(pair, merge("hft", *pair, tmp_path / "out"))
    rest = reset(pair, merge("hft", *pair, tmp_path / "rest", inverse=True))
    for name in back:
        other = name.removesuffix("weight") + "bias"
        assert other not in rest
    total = sum(per_block(back | rest, "").values())
    assert abs(2 * sum(per_block(back, "").values()) - total) <= 4
    if architecture == "gpt2":
        assert per_block(back, "attn.") == per_block(back, "mlp.") == {0: 1, 1: 1}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("layers", {}, "layers needs --layers"),
        ("layers", {"layers": "2"}, "--layers 2: there is no layer 2: the region has layers 0 to 1"),
        ("layers", {"layers": "1-0"}, "--layers 1-0: '1-0' is not a range"),
        ("layers", {"layers": "0,,1"}, "--layers '0,,1'"),
        ("layers", {"layers": "-1"}, "--layers -1"),
        ("layers", {"layers": "0-99999999999999"}, "--layers"),
        ("layers", {"layers": "0", "region": "embeddings"}, "the region has no layers"),
        ("modules", {}, "modules needs --modules"),
        ("modules", {"modules": "down,w9"}, "--modules down,w9: there is no 'w9': the region has"),
        ("hft", {"layers": "1"}, "no option --layers; it has --inverse"),
        ("fapm", {"keep": 2}, "--keep 2"),
        ("dg-hard", {"scale": -1}, "--scale -1"),
        ("dg-hard", {"scale": float("nan")}, "--scale nan"),
    ],
)
def test_refuses_options_by_flag(pair_of, tmp_path: Path, name: str, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        merge(name, *pair_of(), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())
