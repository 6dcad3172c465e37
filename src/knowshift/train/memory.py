"""One setting of the C library that makes training on a CPU a sixth faster."""

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Let this process reuse large blocks it has freed, for the rest of its life.

    Every step frees and allocates gradients and activations of the same sizes. glibc hands blocks of that size back
    to the system at once, which then clears each page again when it is next touched. Peak memory stays the same.

    Returns:
        Whether it could be set; other C libraries go on as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
