"""Where a tensor belongs, told from its name alone: transformer block, module, region.

Knows the naming of Llama, Qwen, Gemma, GPT-2, GPT-NeoX, Phi and Mixtral-style checkpoints; a module it does
not know keeps the tensor's own name.
"""

import re
from dataclasses import dataclass
from typing import Literal

from knowshift.errors import InputError

Kind = Literal["attention", "mlp", "block", "norm", "embedding", "buffer", "other"]

REGIONS: dict[str, tuple[Kind, ...]] = {
    "blocks": ("attention", "mlp", "block"),
    "attention": ("attention",),
    "mlp": ("mlp",),
    "embeddings": ("embedding",),
    "all": ("attention", "mlp", "block", "norm", "embedding", "other"),
}

# Segments that wrappers put in front: a multimodal or sequence-classification shell, a compiled model.
WRAPPERS = ("model", "transformer", "language_model", "base_model", "module", "_orig_mod", "gpt_neox")

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.(.+)$")
_NORM = re.compile(r"(?:^|\.)(?:[^.]*norm[^.]*|ln(?:_[^.]*|\d+)?)(?:\.|$)", re.IGNORECASE)
# Constants that older versions stored with the weights: causal masks and rotary frequencies.
_BUFFER = re.compile(r"\.(?:attn|attention)\.(?:bias|masked_bias)$|rotary_emb\.inv_freq$|position_ids$")
_EMBEDDING = re.compile(
    r"^(?:embed_tokens|tok_embeddings|wte|wpe|embed_in|embed_out|word_embeddings|lm_head|(?:decoder\.)?embed_\w+)"
    r"(?:\.|$)"
)

_MODULES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "out_proj": "o",
    "wq": "q", "wk": "k", "wv": "v", "wo": "o",
    "qkv_proj": "qkv", "c_attn": "qkv", "query_key_value": "qkv", "Wqkv": "qkv",
    "gate_proj": "gate", "w1": "gate",
    "up_proj": "up", "w3": "up", "c_fc": "up", "fc1": "up", "dense_h_to_4h": "up",
    "down_proj": "down", "w2": "down", "fc2": "down", "dense_4h_to_h": "down",
    "gate_up_proj": "gate_up",
    "router": "router", "shared_expert_gate": "router",
}  # fmt: skip
# Names that mean one thing in attention and another in the feed-forward part.
_ATTENTION_MODULES = {"c_proj": "o", "dense": "o"}
_MLP_MODULES = {"c_proj": "down", "gate": "router"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor belongs.

    Attributes:
        layer: index of the transformer block, None outside of blocks.
        module: q, k, v, o, qkv, gate, up, down, gate_up, router, or the tensor's own name within its block.
        kind: attention, mlp, block (other matrices in a block), norm, embedding, buffer or other.
    """

    layer: int | None
    module: str
    kind: Kind


def unwrapped(name: str) -> str:
    """``name`` without the segments that wrappers put in front of it."""
    while True:
        first, dot, rest = name.partition(".")
        if not dot or first not in WRAPPERS:
            return name
        name = rest


def classify(name: str) -> Place:
    """Where the tensor called ``name`` in a checkpoint belongs."""
    name = unwrapped(name)
    in_block = _BLOCK.search(name)
    inner = in_block.group(2) if in_block else name
    layer = int(in_block.group(1)) if in_block else None
    own = inner.removesuffix(".weight").removesuffix(".bias") or inner
    if _BUFFER.search(name):
        return Place(layer, inner, "buffer")
    if _NORM.search(inner):
        return Place(layer, own, "norm")
    if in_block is None:
        return Place(None, own, "embedding" if _EMBEDDING.search(name) else "other")
    segments = own.split(".")
    if any("attn" in segment or "attention" in segment for segment in segments):
        return Place(layer, _module(segments, _ATTENTION_MODULES, own), "attention")
    if any(_is_mlp(segment) for segment in segments):
        return Place(layer, _module(segments, _MLP_MODULES, own), "mlp")
    return Place(layer, _module(segments, {}, own), "block")


def kinds(region: str) -> tuple[Kind, ...]:
    """The kinds of tensors that make up a region.

    Raises:
        InputError: naming the flag if there is no such region.
    """
    if region not in REGIONS:
        raise InputError(f"--region {region}: must be one of {', '.join(REGIONS)}")
    return REGIONS[region]


def _module(segments: list[str], local: dict[str, str], own: str) -> str:
    for segment in reversed(segments):
        module = local.get(segment) or _MODULES.get(segment)
        if module:
            return module
    return own


def _is_mlp(segment: str) -> bool:
    return segment in ("feed_forward", "ffn", "fc1", "fc2", "experts") or "mlp" in segment or "moe" in segment
