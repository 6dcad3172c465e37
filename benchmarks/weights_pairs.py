"""Synthetic pairs of checkpoints, written tensor by tensor so that any size fits into memory."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SPREAD = 0.02
_BLOCK = 1 << 24
# Billions of weights: layers, hidden, inner, key-value width, vocabulary, separate head. 0.5 is Qwen2.5-0.5B,
# 10 has the lm_head of Llama-3-70B.
SHAPES = {
    0.001: (2, 64, 192, 64, 4096, False),
    0.1: (12, 640, 1920, 160, 49152, False),
    0.5: (24, 896, 4864, 128, 151936, False),
    3.0: (36, 2048, 11008, 256, 151936, False),
    10.0: (9, 8192, 28672, 1024, 128256, True),
}


def tensors(billions: float) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, in the order of the file."""
    if billions not in SHAPES:
        raise SystemExit(f"no shapes for {billions} billion weights; there are {', '.join(map(str, SHAPES))}")
    layers, hidden, inner, narrow, vocabulary, head = SHAPES[billions]
    if head:
        yield "lm_head.weight", (vocabulary, hidden)
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(layers):
        place = f"model.layers.{layer}."
        yield place + "input_layernorm.weight", (hidden,)
        yield place + "mlp.down_proj.weight", (hidden, inner)
        yield place + "mlp.gate_proj.weight", (inner, hidden)
        yield place + "mlp.up_proj.weight", (inner, hidden)
        yield place + "post_attention_layernorm.weight", (hidden,)
        yield place + "self_attn.k_proj.weight", (narrow, hidden)
        yield place + "self_attn.o_proj.weight", (hidden, hidden)
        yield place + "self_attn.q_proj.weight", (hidden, hidden)
        yield place + "self_attn.v_proj.weight", (narrow, hidden)
    yield "model.norm.weight", (hidden,)


def make(out: Path, billions: float, update: float, seed: int) -> str:
    """Write ``out/base`` and ``out/tuned``; returns what they are."""
    header, offset = {}, 0
    for name, shape in tensors(billions):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    generator = np.random.Generator(np.random.SFC64(seed))
    same = total = 0
    files = []
    for side in ("base", "tuned"):
        (out / side).mkdir(parents=True, exist_ok=True)
        layers, hidden, inner, narrow, vocabulary, head = SHAPES[billions]
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
            "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": hidden // 64,
            "num_key_value_heads": narrow // 64 or 1, "vocab_size": vocabulary, "tie_word_embeddings": not head,
            "torch_dtype": "bfloat16", "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 32768,
        }  # fmt: skip
        (out / side / "config.json").write_text(json.dumps(config, indent=2))
        files.append((out / side / "model.safetensors").open("wb"))
        files[-1].write(len(text).to_bytes(8, "little") + text)
    for name, shape in tensors(billions):
        left = int(np.prod(shape))
        while left:
            block = min(left, _BLOCK)
            base = _stored(generator.standard_normal(block, np.float32) * np.float32(SPREAD))
            moved = (base.astype(np.uint32) << 16).view(np.float32)
            tuned = (
                base
                if "norm" in name
                else _stored(moved + generator.standard_normal(block, np.float32) * np.float32(update))
            )
            same += int((base == tuned).sum())
            total += block
            files[0].write(base.tobytes())
            files[1].write(tuned.tobytes())
            left -= block
    for file in files:
        file.close()
    return f"{out}: {total:,} weights a side, {same / total:.1%} of them alike"


def _stored(values: np.ndarray) -> np.ndarray:
    """bfloat16 patterns, rounded to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
