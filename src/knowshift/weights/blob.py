"""A file's bytes by position.

Knows no format. Nothing is mapped into memory: a mapped file that becomes shorter ends the process, where a read
that comes up short can be reported.
"""

import os
import stat
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from knowshift.errors import InputError


class Blob:
    """A regular file, open for reading until nobody holds it any more. Threads may share it.

    Attributes:
        file: its path.
        size: its length in bytes when it was opened.

    Raises:
        InputError: naming the file if it cannot be opened or is a folder, a pipe or a device.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            # Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
            self._handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._handle)
            status = os.fstat(self._handle)
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{file}: is not a regular file")
        self.size = status.st_size

    def bytes(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset`` on."""
        return self.words(offset, count, np.dtype(np.uint8)).tobytes()

    def words(self, offset: int, count: int, word: np.dtype[Any]) -> npt.NDArray[Any]:
        """``count`` little-endian numbers of type ``word`` from byte ``offset`` on, in a new read-only array.

        Raises:
            InputError: naming the file if it ends before, because it became shorter.
        """
        array = np.empty(count, word)
        left = array.data.cast("B") if count else memoryview(b"")
        while left:
            try:
                done = os.preadv(self._handle, [left], offset)
            except OSError as error:
                raise InputError(f"{self.file}: cannot be read: {error.strerror}") from error
            if not done:
                raise InputError(f"{self.file}: became shorter while it was read")
            left = left[done:]
            offset += done
        array.flags.writeable = False
        return array

    def prefetch(self, offset: int, count: int) -> None:
        """Ask the system to have these bytes in memory soon."""
        if count > 0 and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._handle, offset, count, os.POSIX_FADV_WILLNEED)
