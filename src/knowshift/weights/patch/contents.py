"""The digest of a tensor's content: the same however a checkpoint is cut into files.

Knows where bytes lie, nothing of models. A digest is SHA-256 over the SHA-256 digests of the tensor's blocks in
order, so that blocks can be hashed side by side, and a block as it is made.
"""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from knowshift.progress import bar
from knowshift.weights.blob import Blob
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.header import TYPE_BITS, Tensor
from knowshift.weights.walk import threads

_BYTE = np.dtype(np.uint8)


def leaf(block: memoryview) -> bytes:
    """The digest of one block."""
    return hashlib.sha256(block).digest()


def leaves(tensor: Tensor, block: int, first: int = 0) -> Iterator[bytes]:
    """The digests of a tensor's blocks of ``block`` elements, from block number ``first`` on, read from its file.

    Raises:
        InputError: naming the file if it became shorter since its header was read.
    """
    step = max(block * TYPE_BITS[tensor.dtype] // 8, 1)
    blob = Blob(tensor.file)
    for start in range(first * step, tensor.bytes, step):
        yield leaf(blob.words(tensor.offset + start, min(step, tensor.bytes - start), _BYTE).data)


def digest(tensor: Tensor, block: int) -> str:
    """The digest of a whole tensor in hexadecimal."""
    return hashlib.sha256(b"".join(leaves(tensor, block))).hexdigest()


def digests(checkpoint: Checkpoint, block: int) -> dict[str, str]:
    """The digest of every tensor of a checkpoint by name."""
    tensors = list(checkpoint.tensors.values())
    found: dict[str, str] = {}
    with (
        bar("digests", sum(tensor.bytes for tensor in tensors)) as advance,
        ThreadPoolExecutor(threads(), "digests") as pool,
    ):
        try:
            for tensor, value in zip(tensors, pool.map(lambda each: digest(each, block), tensors), strict=True):
                found[tensor.name] = value
                advance(tensor.bytes)
        finally:
            pool.shutdown(cancel_futures=True)
    return found


class Expected:
    """Blocks of several tensors as they are made, in any order; each tensor is checked when it is whole."""

    def __init__(self, wanted: dict[str, tuple[int, str]]) -> None:
        """``wanted``: number of blocks and digest of each tensor by name."""
        self._wanted = wanted
        self._made: dict[str, dict[int, bytes]] = {}
        self._lock = threading.Lock()

    def made(self, name: str, number: int, digest: bytes) -> bool:
        """Note a block; False if it completes a tensor that is not what was wanted."""
        with self._lock:
            blocks, wanted = self._wanted[name]
            own = self._made.setdefault(name, {})
            own[number] = digest
            if len(own) < blocks:
                return True
            del self._made[name]
        total = hashlib.sha256(b"".join(own[place] for place in range(blocks)))
        return total.hexdigest() == wanted
