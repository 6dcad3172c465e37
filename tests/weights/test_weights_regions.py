"""Region and module names, on the tensors that transformers really writes."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
import weights_twin as twin

import tiny
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.pairing import pair
from knowshift.weights.regions import REGIONS, Place, classify

EXPECTED = {  # modules of one block, norms aside
    "llama": {"q", "k", "v", "o", "gate", "up", "down"},
    "llama-untied": {"q", "k", "v", "o", "gate", "up", "down"},
    "qwen2": {"q", "k", "v", "o", "gate", "up", "down"},
    "gemma3": {"q", "k", "v", "o", "gate", "up", "down"},
    "gpt2": {"qkv", "o", "up", "down"},
    "mixtral": {"q", "k", "v", "o", "gate", "up", "down", "router"},
}


@pytest.mark.parametrize("architecture", EXPECTED)
def test_every_tensor_of_a_real_checkpoint_has_its_place(pair_of, architecture: str) -> None:
    base, _ = pair_of(architecture)
    places = {name: classify(name) for name in twin.load(base)}
    for layer in (0, 1):
        inside = {place.module for place in places.values() if place.layer == layer and place.kind != "norm"}
        assert inside == EXPECTED[architecture]
    kinds = Counter(place.kind for place in places.values())
    assert not kinds["block"] and not kinds["other"] and not kinds["buffer"]
    for name, place in places.items():
        assert (place.kind in REGIONS["blocks"]) == twin.is_block_matrix(name), name
        assert (place.kind == "norm") == ("norm" in name or ".ln_" in name), name
        assert (place.kind == "embedding") == any(word in name for word in ("embed", "wte", "wpe", "lm_head")), name
        assert (place.kind == "attention") == (".self_attn." in name or ".attn." in name) or place.kind == "norm", name


Q, QKV, MLP = {"q", "k", "v", "o"}, {"qkv", "o"}, {"gate", "up", "down"}
ZOO = {  # modules of the blocks of every other architecture, norms aside
    "bloom": QKV | {"up", "down"},
    "deepseek_v3": {"q_a", "q_b", "kv_a", "kv_b", "o", "router"} | MLP,
    "falcon": QKV | {"up", "down"},
    "gemma2": Q | MLP,
    "gemma3_text": Q | MLP,
    "glm4": Q | {"gate_up", "down"},
    "gpt2": QKV | {"up", "down"},
    "gpt_neo": Q | {"up", "down"},
    "gpt_neox": QKV | {"up", "down"},
    "gpt_oss": Q | {"gate_up", "down", "router", "self_attn.sinks"},
    "gptj": Q | {"up", "down"},
    "granitemoe": Q | {"gate_up", "down", "router"},
    "jamba": {f"mamba.{name}" for name in ("A_log", "D", "conv1d", "dt_proj", "in_proj", "out_proj", "x_proj")}
    | Q | {"router"} | MLP,
    "llama": Q | MLP,
    "llama4_text": Q | MLP | {"gate_up", "router"},
    "mixtral": Q | MLP | {"router"},
    "mpt": QKV | {"up", "down"},
    "olmo2": Q | MLP,
    "olmoe": Q | MLP | {"router"},
    "opt": Q | {"up", "down"},
    "phi": Q | {"up", "down"},
    "phi3": QKV | {"gate_up", "down"},
    "qwen2": Q | MLP,
    "qwen2_moe": Q | MLP | {"router"},
    "qwen3": Q | MLP,
    "qwen3_moe": Q | MLP | {"router"},
    "starcoder2": Q | {"up", "down"},
}  # fmt: skip


@pytest.mark.parametrize("kind", tiny.ZOO)
def test_names_agree_with_what_the_modules_are(kind: str, tmp_path: Path) -> None:
    model = tiny.specimen(kind)
    model.save_pretrained(tmp_path)
    opened = Checkpoint.open(tmp_path)
    places = {name: classify(name) for name in opened.tensors}
    assert {place.module for place in places.values() if place.kind in REGIONS["blocks"]} == ZOO[kind]
    owners = dict(model.named_modules())
    lists = [name for name, module in owners.items() if isinstance(module, torch.nn.ModuleList)]
    (stack,) = [name for name in lists if not re.search(r"\.\d+\.", name + ".")]
    in_block = re.compile(re.escape(stack) + r"\.(\d+)\.")
    followed = 0
    for name, place in places.items():
        layer = in_block.match(name)
        assert place.layer == (int(layer.group(1)) if layer else None), name
        owner = owners.get(name.rpartition(".")[0])
        if owner is None:  # experts, renamed as they were saved
            continue
        followed += 1
        is_norm = "norm" in type(owner).__name__.lower()
        is_embedding = isinstance(owner, torch.nn.Embedding) or owner is model.get_output_embeddings()
        assert (place.kind == "norm") == is_norm, name
        assert (place.kind == "embedding") == is_embedding, name
        if not is_norm and not is_embedding:
            depth = stack.count(".") + 2  # of the block itself
            path = [type(owners[".".join(name.split(".")[:end])]) for end in range(depth + 1, name.count(".") + 1)]
            assert (place.kind == "attention") == any("attention" in part.__name__.lower() for part in path), name
    assert followed > len(places) / 2 or kind in ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v3")
    # Regions: every tensor inside of blocks that is no norm, and each of them in one part.
    regions = {region: {entry.name for entry in pair(opened, opened, region)[0]} for region in REGIONS}
    assert regions["all"] == places.keys()
    assert regions["blocks"] == {
        name for name, place in places.items() if place.layer is not None and place.kind != "norm"
    }
    assert regions["attention"] | regions["mlp"] <= regions["blocks"] and not regions["attention"] & regions["mlp"]
    if kind != "jamba":
        assert regions["attention"] | regions["mlp"] == regions["blocks"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.3.self_attn.q_proj.bias", Place(3, "q", "attention")),
        ("model.layers.3.self_attn.q_norm.weight", Place(3, "self_attn.q_norm", "norm")),
        ("model.language_model.layers.11.mlp.down_proj.weight", Place(11, "down", "mlp")),
        ("h.0.attn.c_proj.bias", Place(0, "o", "attention")),
        ("transformer.h.0.mlp.c_proj.weight", Place(0, "down", "mlp")),
        ("h.0.attn.bias", Place(0, "attn.bias", "buffer")),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", Place(0, "self_attn.rotary_emb.inv_freq", "buffer")),
        ("model.layers.2.block_sparse_moe.experts.7.w1.weight", Place(2, "gate", "mlp")),
        ("model.layers.2.block_sparse_moe.experts.7.w2.weight", Place(2, "down", "mlp")),
        ("model.layers.2.block_sparse_moe.experts.7.w3.weight", Place(2, "up", "mlp")),
        ("model.layers.2.block_sparse_moe.gate.weight", Place(2, "router", "mlp")),
        ("model.layers.2.mlp.experts.gate_up_proj", Place(2, "gate_up", "mlp")),
        ("model.layers.2.mlp.shared_expert.gate_proj.weight", Place(2, "gate", "mlp")),
        ("gpt_neox.layers.1.attention.query_key_value.weight", Place(1, "qkv", "attention")),
        ("gpt_neox.layers.1.attention.dense.weight", Place(1, "o", "attention")),
        ("gpt_neox.layers.1.mlp.dense_4h_to_h.bias", Place(1, "down", "mlp")),
        ("model.layers.4.mixer.in_proj.weight", Place(4, "mixer.in_proj", "block")),
        ("model.layers.4.mixer.out_proj.weight", Place(4, "mixer.out_proj", "block")),
        ("model.layers.2.mlp.experts.down_proj_bias", Place(2, "down", "mlp")),
        ("model.layers.2.mlp.gate.e_score_correction_bias", Place(2, "router", "mlp")),
        ("transformer.blocks.0.norm_attn_norm.attn.Wqkv.weight", Place(0, "qkv", "attention")),
        ("transformer.blocks.0.norm_attn_norm.norm_1.weight", Place(0, "norm_attn_norm.norm_1", "norm")),
        ("transformer.blocks.0.ffn.experts.mlp.v1", Place(0, "up", "mlp")),
        ("_orig_mod.model.layers.1._orig_mod.self_attn.v_proj.weight", Place(1, "v", "attention")),
        ("base_model.model.model.layers.1.mlp.up_proj.weight", Place(1, "up", "mlp")),
        ("model.vision_tower.encoder.layers.5.self_attn.q_proj.weight", Place(5, "vision_tower.q", "attention")),
        ("model.visual.blocks.5.mlp.fc1.bias", Place(5, "visual.up", "mlp")),
        ("encoder.block.3.layer.0.SelfAttention.q.weight", Place(3, "encoder.q", "attention")),
        ("decoder.block.3.layer.2.DenseReluDense.wo.weight", Place(3, "down", "mlp")),
        ("shared.weight", Place(None, "shared", "embedding")),
        ("model.decoder.embed_positions.weight", Place(None, "embed_positions", "embedding")),
        ("layers." + "9" * 5000 + ".x", Place(None, "layers." + "9" * 5000 + ".x", "other")),
        ("model.norm.weight", Place(None, "norm", "norm")),
        ("transformer.ln_f.bias", Place(None, "ln_f", "norm")),
        ("lm_head.weight", Place(None, "lm_head", "embedding")),
        ("transformer.wpe.weight", Place(None, "wpe", "embedding")),
        ("score.weight", Place(None, "score", "other")),
    ],
)
def test_names(name: str, place: Place) -> None:
    assert classify(name) == place
