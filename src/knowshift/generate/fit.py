"""How many continuations are decoded together: as many as the free memory holds, up to where more stop paying.

Knows the keys, values and logits of one continuation, and devices; not what is decoded.
"""

from collections import Counter
from typing import Any

import torch

from knowshift.memory import free_memory

POSITIONS = 160  # of one continuation, prompt included; longer ones are decoded fewer at a time
MOST = {"cpu": 384, "cuda": 2048}  # beyond it, the rate of matrix products grows no more
SHARE = 0.5  # of the free memory; the rest is for what a forward pass needs between its layers
LOGIT_BYTES = 16  # each in the model's type, as a float32 weight and as parts of sums


def fit_rows(cache: Any, logits: torch.Tensor) -> int:
    """Continuations to decode together: the most for the device, halved until they fit.

    Only such steps are given, so that a little more or less free memory does not change what is decoded together,
    which shows in the last bits.

    Args:
        cache: transformers' cache of one continuation, on whatever devices its layers are.
        logits: (1, vocabulary).
    """
    needs: Counter[torch.device] = Counter({logits.device: logits.shape[-1] * LOGIT_BYTES})
    for layer in getattr(cache, "layers", ()):
        for states in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if states is not None and states.ndim == 4 and states.shape[2]:
                needs[states.device] += POSITIONS * states[:1, :, :1].nbytes
    rows = min(MOST.get(device.type, MOST["cpu"]) for device in needs)
    while rows > 1 and any(rows * size > SHARE * free_memory(device) for device, size in needs.items()):
        rows //= 2
    return rows


def shorter(rows: int, positions: int) -> int:
    """Of ``rows`` fitted to ``POSITIONS``, how many are decoded together at ``positions``; again in halves."""
    while rows > 1 and positions > POSITIONS:
        rows //= 2
        positions = -(-positions // 2)
    return rows
