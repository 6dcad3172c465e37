"""Where a tensor belongs, told from its name alone: transformer block, module, region.

Knows the naming of the common decoders as transformers saves them; a module it does not know keeps the tensor's own
name.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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
EXPRESSION = "re:"  # what a region given as a regular expression begins with

# Segments that wrappers put in front: a multimodal or classification shell, an adapter, a compiled model.
WRAPPERS = (
    "model", "transformer", "language_model", "text_model", "backbone", "decoder", "gpt_neox", "base_model", "module",
)  # fmt: skip
# Segments that wrappers put anywhere: torch.compile, FSDP and activation checkpointing.
_INNER_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

_BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d{1,6})\.(.+)$")
# Stacks of blocks beside the language model's own.
_TOWER = re.compile(r"^(?:vision\w*|visual|image\w*|audio\w*|speech\w*|encoder|mtp)(?=\.)")
_NORM = re.compile(r"norm|^ln(?:_|\d*$)", re.IGNORECASE)
# Constants that older versions stored with the weights: causal masks and rotary frequencies.
_BUFFER = re.compile(
    r"\.(?:attn|attention|self_attention)\.(?:bias|masked_bias)$|\.causal_mask$|rotary_emb\.inv_freq$|position_ids$"
)
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:embed_\w+|tok_embeddings|wte|wpe|word_embeddings|embeddings|shared|lm_head)(?:\.|$)|^output(?:\.|$)"
)

_MODULES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o",
    "wq": "q", "wk": "k", "wv": "v", "wo": "o", "q": "q", "k": "k", "v": "v", "o": "o",
    "qkv_proj": "qkv", "c_attn": "qkv", "query_key_value": "qkv", "Wqkv": "qkv",
    "q_a_proj": "q_a", "q_b_proj": "q_b", "kv_a_proj_with_mqa": "kv_a", "kv_b_proj": "kv_b",
    "gate_proj": "gate", "w1": "gate", "wi_0": "gate",
    "up_proj": "up", "w3": "up", "v1": "up", "c_fc": "up", "fc1": "up", "fc_in": "up", "dense_h_to_4h": "up",
    "wi": "up", "wi_1": "up",
    "down_proj": "down", "down_proj_bias": "down", "w2": "down", "fc2": "down", "fc_out": "down",
    "dense_4h_to_h": "down", "output_linear": "down",
    "gate_up_proj": "gate_up", "gate_up_proj_bias": "gate_up", "input_linear": "gate_up",
    "router": "router", "shared_expert_gate": "router",
}  # fmt: skip
# Names that mean one thing in attention and another in the feed-forward part.
_ATTENTION_MODULES = {"c_proj": "o", "dense": "o", "out_proj": "o"}
_MLP_MODULES = {"c_proj": "down", "wo": "down", "gate": "router"}
_MLP = re.compile(r"mlp|moe|^(?:feed_forward|ffn|fc1|fc2|experts|densereludense)$")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor belongs.

    Attributes:
        layer: index of the transformer block, None outside of blocks.
        module: q, k, v, o, gate, up, down, router; fused tensors qkv, gate_up; latent attention's q_a, q_b, kv_a,
            kv_b; or the tensor's own name within its block. Experts share a module. In a second stack of blocks, such
            as a vision tower, the stack's name stands in front.
        kind: attention, mlp, block (other matrices in a block), norm, embedding, buffer or other.
    """

    layer: int | None
    module: str
    kind: Kind


def unwrapped(name: str) -> str:
    """``name`` without the segments that wrappers put into it."""
    name = _INNER_WRAPPERS.sub("", name)
    while True:
        first, dot, rest = name.partition(".")
        if not dot or first not in WRAPPERS:
            return name
        name = rest


@cache
def classify(name: str) -> Place:
    """Where the tensor called ``name`` in a checkpoint belongs."""
    name = unwrapped(name)
    in_block = _BLOCK.search(name)
    inner = in_block.group(2) if in_block else name
    layer = int(in_block.group(1)) if in_block else None
    own = inner.removesuffix(".weight").removesuffix(".bias") or inner
    segments = own.split(".")
    kind: Kind
    if _BUFFER.search(name):
        return Place(layer, inner, "buffer")
    if _NORM.search(segments[-1]):
        kind, module = "norm", own
    elif in_block is None:
        kind, module = ("embedding" if _EMBEDDING.search(name) else "other"), own
    elif any("attn" in segment or "attention" in segment.lower() for segment in segments):
        kind, module = "attention", _module(segments, _ATTENTION_MODULES, own)
    elif any(_MLP.search(segment.lower()) for segment in segments):
        kind, module = "mlp", _module(segments, _MLP_MODULES, own)
    else:
        kind, module = "block", _module(segments, {}, own)
    tower = _TOWER.search(name) if in_block else None
    return Place(layer, f"{tower.group()}.{module}" if tower else module, kind)


def selector(region: str) -> Callable[[str], bool]:
    """Whether a tensor's name lies in a region.

    Args:
        region: one of ``REGIONS``, or ``re:`` and a regular expression that is searched for in the names as they
            stand in the tuned checkpoint.

    Raises:
        InputError: naming the flag if there is no such region or it is no regular expression.
    """
    if region.startswith(EXPRESSION):
        try:
            expression = re.compile(region.removeprefix(EXPRESSION))
        except (re.error, RecursionError, OverflowError) as error:
            raise InputError(f"--region {region}: not a regular expression: {error}") from error
        return lambda name: expression.search(name) is not None
    if region not in REGIONS:
        raise InputError(
            f"--region {region}: must be one of {', '.join(REGIONS)}, or {EXPRESSION} and a regular expression"
        )
    kinds = REGIONS[region]
    return lambda name: classify(name).kind in kinds


def _module(segments: list[str], local: dict[str, str], own: str) -> str:
    for segment in reversed(segments):
        module = local.get(segment) or _MODULES.get(segment)
        if module:
            return module
    return own
