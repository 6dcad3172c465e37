"""Patches made while a restoration is computed, each in one pass, as checkpoint folders are.

Takes what ``output.write_checkpoints`` takes and writes, instead of whole checkpoints, what sets them apart from the
tuned one. Memory is a few tiles and the index, eight bytes for 131,072 weights.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from knowshift.errors import InputError
from knowshift.files import atomic_file, free_room, full_disk_refused, remove_leftovers
from knowshift.weights.bits import Bits
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.header import TYPE_BITS
from knowshift.weights.pairing import Pair
from knowshift.weights.patch.codec import encode
from knowshift.weights.patch.container import MAGIC, Writer
from knowshift.weights.patch.contents import digests, leaf, leaves
from knowshift.weights.patch.manifest import Entry, Origin
from knowshift.weights.scores import TILE
from knowshift.weights.walk import Tile, walk

SUFFIX = ".patch"


def write_patches(
    tuned: Checkpoint,
    pairs: Sequence[Pair],
    targets: Sequence[Path],
    origins: Sequence[Origin],
    most: Sequence[int],
    make: Callable[[Tile], Sequence[Bits]],
    description: str,
) -> list[Path]:
    """Write one patch file for each of ``targets``, all in one pass.

    Args:
        tuned: the checkpoint that the patches start from.
        pairs: the tensors whose bits are made anew, in its order.
        targets: the files to write, with what is said of each in ``origins``.
        most: how many elements each can change at most, for the room on the disk.
        make: the new bits of a tile, for each target, in the tuned tensor's type.

    Raises:
        InputError: if a target is not ours to replace or the disk has no room.
    """
    for target in targets:
        _refuse(target, tuned)
        remove_leftovers(target)
    _check_room(targets, most, max(TYPE_BITS[entry.tuned.dtype] // 8 for entry in pairs))
    sides = digests(tuned, TILE)
    with full_disk_refused(targets[0].parent), ExitStack() as stack:
        files = [stack.enter_context(stack.enter_context(atomic_file(target)).open("wb")) for target in targets]
        writers = [Writer(file) for file in files]
        after = [{entry.name: hashlib.sha256() for entry in pairs} for _ in targets]

        def pack(tile: Tile) -> list[tuple[int, bytes, bytes]]:
            stop = min(tile.start + TILE, tile.pair.tuned.size)
            before = tuned.read(tile.pair.name, tile.start, stop)
            blocks = [_lengthened(bits, before) for bits in make(tile)]
            return [(*encode(before, block), leaf(block.data)) for block in blocks]

        for tile, packed in walk(pairs, pack, description):
            for writer, sums, (count, content, digest) in zip(writers, after, packed, strict=True):
                writer.add(tile.pair.name, count, content)
                sums[tile.pair.name].update(digest)
            if tile.stop == tile.pair.size:
                for digest in leaves(tile.pair.tuned, TILE, -(-tile.stop // TILE)):
                    for sums in after:
                        sums[tile.pair.name].update(digest)
        for writer, sums, origin in zip(writers, after, origins, strict=True):
            writer.finish(origin, TILE, _entries(tuned, pairs, writer, sides, sums))
    return list(targets)


def _lengthened(bits: Bits, block: Bits) -> Bits:
    """Where only the first rows were compared, what comes after them in the block stays as it is."""
    return bits if bits.size == block.size else np.concatenate([bits, block[bits.size :]])


def _entries(
    tuned: Checkpoint, pairs: Sequence[Pair], writer: Writer, before: dict[str, str], after: dict[str, Any]
) -> list[Entry]:
    """Every tensor, those that pairs wrote first and in their order."""
    names = dict.fromkeys([*(entry.name for entry in pairs), *tuned.tensors])
    return [
        Entry(
            name=name,
            dtype=tuned.tensors[name].dtype,
            shape=tuned.tensors[name].shape,
            changed=writer.changed(name),
            tuned=before[name],
            restored=after[name].hexdigest() if writer.changed(name) else before[name],
        )
        for name in names
    ]


def _refuse(target: Path, tuned: Checkpoint) -> None:
    if target.resolve().is_relative_to(tuned.folder.resolve()):
        raise InputError(f"{target}: lies within {tuned.folder}, which is being read")
    if not target.exists():
        return
    if target.is_file():
        with target.open("rb") as handle:
            if handle.read(len(MAGIC) - 1) == MAGIC[:-1]:
                return
    raise InputError(f"{target}: exists and was not written by knowshift: choose another --out")


def _check_room(targets: Sequence[Path], most: Sequence[int], width: int) -> None:
    """At most ``width`` bytes for each difference and one for its place."""
    need = sum(most) * (width + 1)
    free = free_room(targets[0])
    if need > free:
        raise InputError(f"{targets[0].parent}: up to {need / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")
