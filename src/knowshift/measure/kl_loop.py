"""``kl.divergence`` on a CPU as one compiled pass over rows: each is read, weighed and compared in the cache.

A divergence between near neighbours is a small difference of large sums, whose rounding would be of its own size. Here
it is summed as ``p (e**r - 1 - r)`` with ``r = log q - log p``: no term is negative, and as the added ``e**r - 1`` sum
to 0, an error in the normaliser enters as its square alone. So float32 is wide enough for every term; sums over blocks
are float64. A row with a logit that is not finite gives NaN.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from knowshift.compiled import bits_of, exponential, float_of, highest_of, in_threads, vector
from knowshift.measure.kl import Divergence

BLOCK = 512
# Below this distance e**r - 1 - r is taken from its series, above it as it stands: each where it keeps its digits.
NEAR = np.float32(1.0)

Array = np.ndarray[Any, Any]


def divergence_compiled(
    base: torch.Tensor, tuned: torch.Tensor, targets: torch.Tensor, words: int | None = None
) -> Divergence:
    """What ``divergence`` gives over the first ``words`` logits on the CPU; divergences to about 1e-6 of themselves.

    Cutting the rows before would leave them apart in memory, and such rows are read one number at a time.
    """
    loop = _loop_bfloat16 if base.dtype == tuned.dtype == torch.bfloat16 else _loop_float32
    left, right = _numbers(base, loop), _numbers(tuned, loop)
    rows = len(left)
    tops = np.zeros((rows, 2), np.int64)
    figures = np.empty((rows, 6), np.float64)
    follows = targets.numpy()
    size = left.shape[1] if words is None else words
    in_threads(lambda low, high: loop(left, right, size, low, high, follows, tops, figures), rows)
    first, numbers = torch.from_numpy(tops), torch.from_numpy(figures)
    return Divergence(*numbers[:, :2].unbind(1), *first.unbind(1), *numbers[:, 2:].unbind(1))


def _numbers(logits: torch.Tensor, loop: Any) -> Array:
    logits = logits.contiguous()
    numbers: Array = (logits.view(torch.uint16) if loop is _loop_bfloat16 else logits.float()).numpy()
    return numbers


@vector
def _read_bfloat16(source: Array, target: Array) -> bool:
    """Copy a row as float32; whether all of it is finite."""
    bad: Any = 0
    for index in range(source.size):
        bits = np.uint32(source[index]) << np.uint32(16)
        bad += (bits & np.uint32(0x7F800000)) == np.uint32(0x7F800000)
        target[index] = float_of(bits)
    return bool(bad == 0)


@vector
def _read_float32(source: Array, target: Array) -> bool:
    """Copy a row; whether all of it is finite."""
    bad: Any = 0
    for index in range(source.size):
        bad += (bits_of(source[index]) & np.uint32(0x7F800000)) == np.uint32(0x7F800000)
        target[index] = source[index]
    return bool(bad == 0)


@vector
def _weights(logits: Array, highest: Any, into: Array) -> Any:
    """e**(logit - highest) of a block; their sum."""
    total = np.float32(0.0)
    for index in range(logits.size):
        weight = exponential(logits[index] - highest)
        into[index] = weight
        total += weight
    return total


@vector
def _beyond_linear(r: Any) -> Any:
    """e**r - 1 - r for r within ``NEAR``."""
    p = np.float32(1 / 3628800)
    p = p * r + np.float32(1 / 362880)
    p = p * r + np.float32(1 / 40320)
    p = p * r + np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(1 / 2)
    return p * r * r


@vector
def _apart(base: Array, tuned: Array, q: Array, p: Array, shares: Any, shift: Any) -> Any:
    """Both divergences' sums over a block, of weights ``q`` (base), ``p`` (tuned) times ``shares``."""
    forward, backward = np.float32(0.0), np.float32(0.0)
    for index in range(base.size):
        r = np.float32((np.float64(base[index]) - np.float64(tuned[index])) - shift)
        left, right = q[index] * shares[0], p[index] * shares[1]
        near = abs(r) < NEAR
        forward += right * _beyond_linear(r) if near else left - right - right * r
        backward += left * _beyond_linear(-r) if near else right - left + left * r
    return forward, backward


@vector
def _first(row: Array, value: Any) -> int:
    for index in range(row.size):
        if row[index] == value:
            return index
    return 0


def _loop_over_rows(read: Callable[..., bool]) -> Callable[..., None]:
    """The loop over rows, for one way to read a row of logits."""

    def loop(
        base: Array, tuned: Array, words: int, low: int, high: int, targets: Array, tops: Array, figures: Array
    ) -> None:
        # One block, as far from left to q as from right to p: a compiled loop may sum in another order where what it
        # reads and what it writes lie close together, and equal rows must have equal sums.
        space = np.empty((4, words), np.float32)
        left, right, q, p = space[0], space[1], space[2], space[3]
        for row in range(low, high):
            fine = read(base[row][:words], left)
            if not (read(tuned[row][:words], right) and fine):
                figures[row] = np.nan
                continue
            highest_left = highest_of(left, np.float32(-np.inf))
            highest_right = highest_of(right, np.float32(-np.inf))
            sum_left, sum_right = 0.0, 0.0
            for start in range(0, words, BLOCK):
                part = slice(start, min(start + BLOCK, words))
                sum_left += np.float64(_weights(left[part], highest_left, q[part]))
                sum_right += np.float64(_weights(right[part], highest_right, p[part]))
            norm_left = np.float64(highest_left) + np.log(sum_left)
            norm_right = np.float64(highest_right) + np.log(sum_right)
            shares = (np.float32(1 / sum_left), np.float32(1 / sum_right))
            shift = norm_left - norm_right
            forward, backward = 0.0, 0.0
            for start in range(0, words, BLOCK):
                part = slice(start, min(start + BLOCK, words))
                ahead, back = _apart(left[part], right[part], q[part], p[part], shares, shift)
                forward += np.float64(ahead)
                backward += np.float64(back)
            tops[row, 0], tops[row, 1] = _first(left, highest_left), _first(right, highest_right)
            figures[row, 0], figures[row, 1] = max(forward, 0.0), max(backward, 0.0)
            figures[row, 2] = np.float64(highest_left) - norm_left
            figures[row, 3] = np.float64(highest_right) - norm_right
            figures[row, 4] = np.float64(left[targets[row]]) - norm_left
            figures[row, 5] = np.float64(right[targets[row]]) - norm_right

    return loop


_loop_bfloat16 = vector(_loop_over_rows(_read_bfloat16))
_loop_float32 = vector(_loop_over_rows(_read_float32))
