"""Region and module names, on the tensors that transformers really writes."""

from collections import Counter

import pytest
import weights_twin as twin

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
        ("model.norm.weight", Place(None, "norm", "norm")),
        ("transformer.ln_f.bias", Place(None, "ln_f", "norm")),
        ("lm_head.weight", Place(None, "lm_head", "embedding")),
        ("transformer.wpe.weight", Place(None, "wpe", "embedding")),
        ("score.weight", Place(None, "score", "other")),
    ],
)
def test_names(name: str, place: Place) -> None:
    assert classify(name) == place
