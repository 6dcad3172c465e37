"""What every compiled loop shares: how it is compiled and spread over threads, floats seen as their bits, and the
two functions that loops over logits need.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar, cast, overload

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])


@overload
def jit(function: F) -> F: ...
@overload
def jit(**options: Any) -> Callable[[F], F]: ...
def jit(function: F | None = None, **options: Any) -> Any:
    """Compile on first use and keep the result beside the code or in the user's cache, where possible.

    The cache notices changes of a compiled function's own file only. Compiled loops release the interpreter lock, so
    they run side by side in plain threads.
    """
    if function is None:
        return lambda given: jit(given, **options)
    chosen: dict[str, Any] = {"nogil": True, "error_model": "numpy", **options}
    try:
        return cast(F, numba.njit(cache=True, **chosen)(function))
    except RuntimeError:  # neither place can be written to
        return cast(F, numba.njit(**chosen)(function))


@intrinsic  # type: ignore[untyped-decorator]
def bits_of(typing: Any, value: Any) -> Any:
    """The bits of a float32 as uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def float_of(typing: Any, value: Any) -> Any:
    """The float32 with these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


# For loops over logits that were looked through for NaN first: sums may be reordered, so that they run in vector lanes.
vector = jit(fastmath={"reassoc", "contract", "arcp", "nsz", "nnan"})


@vector
def exponential(x: Any) -> Any:
    """e**x for x <= 0 to float32's precision, 0 below -87: powers of two by bits, the rest by a polynomial."""
    y = max(x * np.float32(1.4426950408889634), np.float32(-127.0))
    whole = np.floor(y + np.float32(0.5))
    f = y - whole
    p = np.float32(1.5403530393381609e-4)
    p = p * f + np.float32(1.3333558146428443e-3)
    p = p * f + np.float32(9.618129107628477e-3)
    p = p * f + np.float32(5.550410866482158e-2)
    p = p * f + np.float32(0.2402265069591007)
    p = p * f + np.float32(0.6931471805599453)
    p = p * f + np.float32(1.0)
    return p * float_of(np.uint32(np.int32(whole) + np.int32(127)) << np.uint32(23))  # 2**-127 has the bits of 0


@vector
def highest_of(block: np.ndarray[Any, Any], highest: Any) -> Any:
    """The larger of ``highest`` and the largest in ``block``, by integers that order like the floats.

    The compiler runs an integer maximum in vector lanes, a float one it does not.
    """
    best: Any = np.int32(-0x80000000)
    for index in range(block.size):
        bits = np.int32(bits_of(block[index]))
        bits ^= (bits >> np.int32(31)) & np.int32(0x7FFFFFFF)
        best = bits if bits > best else best
    best ^= (best >> np.int32(31)) & np.int32(0x7FFFFFFF)
    return max(float_of(np.uint32(best)), highest)


def in_threads(loop: Callable[[int, int], None], rows: int) -> None:
    """Run ``loop(low, high)`` over parts of ``rows`` rows, side by side in as many threads as torch computes in."""
    threads = min(_torch_threads(), os.cpu_count() or 1)
    edges = np.linspace(0, rows, min(rows, threads) + 1).astype(int)
    list(_pool(threads).map(loop, edges[:-1], edges[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="loop")


def _torch_threads() -> int:
    import torch

    return torch.get_num_threads()
