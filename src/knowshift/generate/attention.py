"""Attention of one new token to many cached ones, on a CPU, as two small batched products.

torch's fused attention is made for long queries: with a single query token it spends its time between the
products. Query heads that share a key head are one matrix here, so keys and values are read once and never
repeated. Softmax is in float32, as in transformers' plain attention.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "knowshift_decode"


def use_decode_attention(model: Any) -> None:
    """Let a model on a CPU that attends by torch's fused attention take this one for single tokens."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, decode_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def decode_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it; what is not the plain case of one query token goes to torch.

    Args:
        module: the attention layer.
        query: (rows, heads, 1, size).
        key: (rows, key heads, positions, size).
        value: (rows, key heads, positions, value size).
        attention_mask: none, or broadcast to (rows, 1, 1, positions): whether to look there, or what to add.
        scaling: of the products; default 1 / sqrt(size).

    Returns:
        (rows, 1, heads, value size), and no attention weights.
    """
    rows, heads, length, size = query.shape
    shared = attention_mask is None or attention_mask.shape[1] == 1
    if length != 1 or not shared or any(options.get(name) is not None for name in ("position_bias", "softcap")):
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return result
    positions = key.shape[2]
    grouped = query.reshape(rows * key.shape[1], -1, size)
    # Products of strided batches cost several times the copy.
    key, value = (states.contiguous().view(len(grouped), positions, -1) for states in (key, value))
    scores = torch.baddbmm(
        _added(attention_mask, key, rows),
        grouped,
        key.transpose(1, 2),
        beta=0 if attention_mask is None else 1,
        alpha=size**-0.5 if scaling is None else scaling,
    )
    mixed = torch.bmm(torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype), value)
    return mixed.view(rows, 1, heads, -1), None


def _added(attention_mask: torch.Tensor | None, key: torch.Tensor, rows: int) -> torch.Tensor:
    """What is added to the scores, (rows x key heads, 1, positions): the lowest number where none may look."""
    if attention_mask is None:
        return key.new_empty(1, 1, 1)
    mask = attention_mask.expand(rows, 1, 1, key.shape[1])[:, 0]
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=key.dtype).masked_fill_(~mask, torch.finfo(key.dtype).min)
    return mask.to(key.dtype).repeat_interleave(len(key) // rows, dim=0)
