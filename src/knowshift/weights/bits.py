"""Stored bits to float32 values and back, for the types that can be ranked: BF16, F16, F32.

Knows arrays only. Rounding is to nearest, ties to even, as torch and numpy round.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from knowshift.weights import kernels

Bits = npt.NDArray[Any]  # uint16 (BF16, F16) or uint32 (F32), one-dimensional
Values = npt.NDArray[np.float32]


def decode(bits: Bits, dtype: str, out: Values | None = None) -> Values:
    """The float32 values of stored bits, exactly."""
    out = np.empty(bits.size, np.float32) if out is None else out
    if dtype == "BF16":
        kernels.from_bfloat16(steady(bits), out)
    elif dtype == "F16":
        out[:] = bits.view(np.float16)
    else:
        out[:] = bits.view(np.float32)
    return out


def encode(values: Values, dtype: str) -> Bits:
    """The bits that store float32 ``values`` in ``dtype``, rounded where it is narrower."""
    if dtype == "BF16":
        bits = np.empty(values.size, np.uint16)
        kernels.to_bfloat16(values, bits)
        return bits
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint16)
    return values.copy().view(np.uint32)


def encode_stochastic(values: Values, dtype: str, stream: int, start: int) -> Bits:
    """As ``encode``, but rounded up or down at random, so that the expected value is exact.

    The draws are a hash of ``stream`` and each element's place, the first being ``start``.
    """
    if dtype == "BF16":
        bits = np.empty(values.size, np.uint16)
        kernels.to_bfloat16_stochastic(values, np.uint64(stream), np.uint64(start), bits)
        return bits
    if dtype == "F16":
        draws = np.empty(values.size, np.uint32)
        kernels.random_keys(np.uint64(stream), np.uint64(start), draws)
        down = np.abs(values).astype(np.float16)
        down = np.where(down > np.abs(values), np.nextafter(down, np.float16(0)), down).astype(np.float32)
        up = np.nextafter(down.astype(np.float16), np.float16(np.inf)).astype(np.float32)
        raised = (np.abs(values) - down) > draws * np.float32(2.0**-31) * (up - down)
        return np.copysign(np.where(raised, up, down), values).astype(np.float16).view(np.uint16)
    return encode(values, dtype)


def pick(mask: npt.NDArray[np.bool_], yes: Bits, no: Bits) -> Bits:
    """``yes`` where ``mask`` is set, ``no`` elsewhere (numpy's ``where`` is ten times slower on 16-bit types)."""
    out = np.empty_like(no)
    kernels.pick(mask, steady(yes), steady(no), out)
    return out


def recast(bits: Bits, stored: str, wanted: str) -> Bits:
    """Bits of the same values in another type."""
    return bits if stored == wanted else encode(decode(bits, stored), wanted)


def steady(bits: Bits) -> Bits:
    """One array type for the compiled loops: aligned and read-only."""
    if not bits.flags.aligned:
        bits = bits.copy()
    if bits.flags.writeable:
        bits = bits.view()
        bits.flags.writeable = False
    return bits
