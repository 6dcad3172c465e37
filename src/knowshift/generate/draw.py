"""Token ids from logits: by each draw's own random number, or the most likely one. Knows numbers only.

A draw takes the first token at which the running sum of softmax(logits / temperature) passes its uniform number
(inverse distribution function), so draws that share a row of logits are independent. Sums run over blocks of
tokens first, then within the one block a draw falls into: a running sum over the whole vocabulary, in double
precision, would cost more than the sampling. On a CPU one compiled pass reads the logits as the model left them
(bfloat16 too); elsewhere torch does the same in its own operations.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from knowshift.compiled import bits_of, exponential, float_of, highest_of, in_threads, vector
from knowshift.generate.engine import NotFinite

BLOCK = 256

Array = np.ndarray[Any, Any]


def draw(logits: torch.Tensor, temperature: float, owners: Array, uniforms: Array) -> Array:
    """Token ids, one a draw.

    Args:
        logits: (rows, vocabulary), any float type.
        temperature: above 0.
        owners: for each draw, the row it is for; ascending.
        uniforms: for each draw, its number in [0, 1).

    Raises:
        NotFinite: if a row of logits holds a NaN or +infinity.
    """
    if logits.device.type == "cpu":
        return _draw_compiled(logits, temperature, owners, uniforms)
    return draw_torch(logits, temperature, owners, uniforms)


def likeliest(logits: torch.Tensor) -> Array:
    """The most likely token of each row, the first among equals.

    Raises:
        NotFinite: if a row of logits holds a NaN.
    """
    best = logits.max(-1)
    _refuse(best.values.isnan())
    tokens: Array = best.indices.cpu().numpy()
    return tokens


def draw_torch(logits: torch.Tensor, temperature: float, owners: Array, uniforms: Array) -> Array:
    """``draw`` in torch operations, on any device."""
    weights = torch.softmax(logits.float() / temperature, dim=-1)
    rows, vocabulary = weights.shape
    weights = torch.nn.functional.pad(weights, (0, -vocabulary % BLOCK))
    blocks = weights.view(rows, -1, BLOCK)
    totals = blocks.sum(-1).double().cumsum(-1)
    _refuse(totals[:, -1].isnan())
    owner = torch.as_tensor(owners, device=logits.device)
    target = torch.as_tensor(uniforms, device=logits.device) * totals[owner, -1]
    hit = torch.searchsorted(totals[owner], target[:, None], right=True).clamp_(max=totals.shape[1] - 1)
    before = torch.where(hit > 0, totals[owner].gather(1, (hit - 1).clamp_(min=0)), 0.0)
    inside = blocks[owner, hit[:, 0]].double().cumsum(-1)
    place = torch.searchsorted(inside, target[:, None] - before, right=True)
    # Rounding between the two sums may point just past the last token with weight; take that token.
    positive = (inside < inside[:, -1:]).sum(-1, keepdim=True)
    tokens: Array = (hit * BLOCK + torch.minimum(place, positive))[:, 0].clamp(max=vocabulary - 1).cpu().numpy()
    return tokens


def _draw_compiled(logits: torch.Tensor, temperature: float, owners: Array, uniforms: Array) -> Array:
    if logits.dtype == torch.bfloat16:
        values, loop = logits.view(torch.uint16).numpy(), _loop_bfloat16
    else:
        values, loop = logits.float().numpy(), _loop_float32
    rows = len(values)
    starts = np.searchsorted(owners, np.arange(rows + 1))
    tokens = np.empty(len(owners), np.int64)
    damaged = np.zeros(rows, np.bool_)
    scale = np.float32(1 / temperature)
    in_threads(lambda low, high: loop(values, scale, low, high, starts, uniforms, tokens, damaged), rows)
    _refuse(torch.from_numpy(damaged))
    return tokens


def _refuse(damaged: torch.Tensor) -> None:
    if damaged.any():
        raise NotFinite("NaN")


@vector
def _read_bfloat16(source: Array, target: Array) -> bool:
    """Copy a block as float32; whether it holds a NaN or +infinity."""
    bad: Any = 0
    for index in range(source.size):
        bits = np.uint32(source[index]) << np.uint32(16)
        bad += (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000) or bits == np.uint32(0x7F800000)
        target[index] = float_of(bits)
    return bool(bad > 0)


@vector
def _read_float32(source: Array, target: Array) -> bool:
    """Copy a block; whether it holds a NaN or +infinity."""
    bad: Any = 0
    for index in range(source.size):
        bits = bits_of(source[index])
        bad += (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000) or bits == np.uint32(0x7F800000)
        target[index] = source[index]
    return bool(bad > 0)


@vector
def _weigh(block: Array, highest: Any, scale: Any) -> Any:
    """Turn logits into weights in place; their sum."""
    total = np.float32(0.0)
    for index in range(block.size):
        block[index] = exponential((block[index] - highest) * scale)
        total += block[index]
    return total


def _loop_over_rows(read: Callable[..., bool]) -> Callable[..., None]:
    """The loop over rows, for one way to read a block of logits."""

    def loop(
        values: Array,
        scale: Any,
        low: int,
        high: int,
        starts: Array,
        uniforms: Array,
        tokens: Array,
        damaged: Array,
    ) -> None:
        vocabulary = values.shape[1]
        blocks = (vocabulary + BLOCK - 1) // BLOCK
        totals = np.empty(blocks, np.float64)
        memory = np.empty(BLOCK, np.float32)
        for row in range(low, high):
            if starts[row] == starts[row + 1]:
                continue
            logits = values[row]
            highest = np.float32(-np.inf)
            for index in range(blocks):
                source = logits[index * BLOCK : min(vocabulary, (index + 1) * BLOCK)]
                block = memory[: source.size]
                damaged[row] |= read(source, block)
                highest = highest_of(block, highest)
            if damaged[row] or highest == -np.inf:
                damaged[row] = True
                continue
            total = 0.0
            for index in range(blocks):
                source = logits[index * BLOCK : min(vocabulary, (index + 1) * BLOCK)]
                block = memory[: source.size]
                read(source, block)
                total += np.float64(_weigh(block, highest, scale))
                totals[index] = total
            for number in range(starts[row], starts[row + 1]):
                target = uniforms[number] * total
                index = 0
                while index < blocks - 1 and totals[index] <= target:
                    index += 1
                source = logits[index * BLOCK : min(vocabulary, (index + 1) * BLOCK)]
                block = memory[: source.size]
                read(source, block)
                _weigh(block, highest, scale)
                running = totals[index - 1] if index > 0 else 0.0
                # Rounding between the two sums may point just past the last token with weight; take that token.
                chosen = 0
                for place in range(block.size):
                    if block[place] > 0:
                        chosen = place
                        running += np.float64(block[place])
                        if running > target:
                            break
                tokens[number] = index * BLOCK + chosen

    return loop


_loop_bfloat16 = vector(_loop_over_rows(_read_bfloat16))
_loop_float32 = vector(_loop_over_rows(_read_float32))
