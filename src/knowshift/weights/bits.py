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
        kernels.from_bfloat16(_steady(bits), out)
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


def recast(bits: Bits, stored: str, wanted: str) -> Bits:
    """Bits of the same values in another type."""
    return bits if stored == wanted else encode(decode(bits, stored), wanted)


def _steady(bits: Bits) -> Bits:
    """One array type for the compiled loops: aligned and read-only, whatever the file's layout."""
    if not bits.flags.aligned:
        bits = bits.copy()
    if bits.flags.writeable:
        bits = bits.view()
        bits.flags.writeable = False
    return bits
