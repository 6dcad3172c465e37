"""Two settings of the C library: keep freed memory while a step repeats, hand it back when it is over."""

import ctypes
import gc
import sys
from typing import Any

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Let this process reuse large blocks it has freed, for the rest of its life.

    Training and sampling free and allocate blocks of the same sizes at every step. glibc hands blocks of that size
    back to the system at once, which then clears each page again when it is next touched: a sixth of a training
    step on a CPU. Peak memory stays the same.

    Returns:
        Whether it could be set; other C libraries go on as they are.
    """
    mallopt = _function("mallopt")
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, 1 << 30) and mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))


def return_freed_memory() -> bool:
    """Hand freed memory back to the system, so that what comes next does not pile up on what is done.

    Returns:
        Whether the C library can.
    """
    gc.collect()
    trim = _function("malloc_trim")
    if trim is None:
        return False
    trim(0)
    return True


def _function(name: str) -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
