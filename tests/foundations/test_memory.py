"""The allocator setting is taken where the C library is glibc, and is harmless elsewhere."""

import platform
import subprocess
import sys

import pytest

from knowshift.memory import keep_freed_memory


def test_taken_by_glibc() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_freed_memory_goes_back() -> None:
    """In a process of its own: a heap of freed small blocks shrinks again."""
    script = (
        "import platform, resource, knowshift.memory as memory\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1])\n"
        "memory.keep_freed_memory()\n"
        "import numpy\n"
        "blocks = [numpy.ones(1 << 20) for _ in range(50)]; keep = numpy.ones(1 << 10)\n"
        "del blocks; before = resident(); done = memory.return_freed_memory()\n"
        "print(done, before, resident())\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    if shown[0] == "False":
        pytest.skip("this C library cannot hand memory back")
    assert int(shown[2]) < int(shown[1]) - 0.8 * 50 * 8 * (1 << 20) / 4096
