"""The allocator setting is taken where the C library is glibc, and is harmless elsewhere."""

import platform

from knowshift.train.memory import keep_freed_memory


def test_taken_by_glibc() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
