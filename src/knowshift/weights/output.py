"""New checkpoint folders made from the tuned one: same header bytes, names, types and sharding, other bits.

Knows files: what is copied along, what is refused, how much room is needed. What the new bits are is asked of
a function of one tile. Every folder appears whole or not at all.
"""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from knowshift.errors import InputError
from knowshift.files import atomic_folder, free_room, full_disk_refused, remove_leftovers
from knowshift.weights.bits import Bits
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.header import TYPE_BITS
from knowshift.weights.pairing import Pair
from knowshift.weights.walk import Tile, walk

CARD = "README.md"
MARK = "knowshift"  # in the card's front matter: a folder that may be written again

# Other copies of the weights, traces of the training run, and notes that hold for the tuned model only.
_LEFT_BEHIND = (
    ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".pkl",
    ".pickle", ".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".npz", ".parquet", ".log", ".lock",
)  # fmt: skip
_LEFT_NAMES = (CARD, "run.json", "metrics.json", "trainer_state.json", "optimizer", "scheduler")
_COPIED_FOLDERS = ("additional_chat_templates",)
_CHUNK = 1 << 24


def write_checkpoints(
    tuned: Checkpoint,
    base: Checkpoint,
    pairs: Sequence[Pair],
    targets: Sequence[Path],
    cards: Callable[[], Sequence[str]],
    make: Callable[[Tile], Sequence[Bits]],
    description: str,
) -> list[Path]:
    """Write one checkpoint folder for each of ``targets``, all in one pass.

    Args:
        tuned: whose header, other tensors and other files are copied.
        base: the other checkpoint, which must not be written over.
        pairs: the tensors whose bits are made anew.
        targets: the folders to write.
        cards: the text of each one's model card, asked for when all weights are written.
        make: the new bits of a tile, for each target, in the tuned tensor's type.

    Raises:
        InputError: if a target is not ours to replace or the disk has no room.
    """
    check_targets(tuned, base, targets)
    with full_disk_refused(targets[0].parent), ExitStack() as stack:
        folders = [stack.enter_context(atomic_folder(target)) for target in targets]
        for folder in folders:
            _copy_others(tuned.folder, folder)
            _copy_frame(tuned, pairs, folder)

        def put(tile: Tile) -> None:
            tensor = tile.pair.tuned
            offset = tensor.offset + tile.start * TYPE_BITS[tensor.dtype] // 8
            for folder, bits in zip(folders, make(tile), strict=True):
                _write(folder / tensor.file.name, bits.data.cast("B"), offset)

        for _ in walk(pairs, put, description):
            pass
        for folder, card in zip(folders, cards(), strict=True):
            (folder / CARD).write_text(card, "utf-8")
    return list(targets)


def check_targets(tuned: Checkpoint, base: Checkpoint, targets: Sequence[Path]) -> None:
    """Refuse folders that could not be written.

    Raises:
        InputError: if one of ``targets`` is not ours to replace or the disk has no room for them.
    """
    for target in targets:
        _refuse(target, (base, tuned))
    for target in targets:  # the room that killed attempts take is needed
        remove_leftovers(target)
    _check_room(tuned, targets)


def _refuse(target: Path, sources: Sequence[Checkpoint]) -> None:
    real = target.resolve()
    for source in sources:
        if any(place.resolve().is_relative_to(real) for place in (source.folder, *source.files)):
            raise InputError(f"{target}: cannot be written: it holds {source.folder}, which is being read")
        if real.is_relative_to(source.folder.resolve()):
            raise InputError(f"{target}: lies within {source.folder}, which is being read")
    replaceable = target.is_dir() and (_ours(target) or not any(target.iterdir()))
    if os.path.lexists(target) and not replaceable:
        raise InputError(f"{target}: exists and was not written by knowshift: choose another --out")


def _ours(folder: Path) -> bool:
    try:
        return f"- {MARK}\n" in (folder / CARD).read_text("utf-8").split("\n---", 1)[0] + "\n"
    except (OSError, UnicodeDecodeError):
        return False


def _check_room(tuned: Checkpoint, targets: Sequence[Path]) -> None:
    need = len(targets) * sum(file.stat().st_size for file in (*tuned.files, *_others(tuned.folder)))
    free = free_room(targets[0])
    if need > free:
        raise InputError(f"{targets[0].parent}: {need / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")


def _others(folder: Path) -> list[Path]:
    """Files that belong to the model beside its weights: configuration, tokenizer, chat template, licence."""
    found = [path for path in sorted(folder.iterdir()) if path.is_file() and _belongs(path.name)]
    for name in _COPIED_FOLDERS:
        found += [path for path in sorted((folder / name).glob("*")) if path.is_file()]
    return found


def _belongs(name: str) -> bool:
    return not (
        name.startswith(".") or name.endswith(_LEFT_BEHIND) or name.startswith(_LEFT_NAMES) or "rng_state" in name
    )


def _copy_others(source: Path, target: Path) -> None:
    for path in _others(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)


def _copy_frame(tuned: Checkpoint, pairs: Sequence[Pair], folder: Path) -> None:
    """Everything of the weight files that no pair will write: headers and the other tensors."""
    if tuned.index is not None:
        shutil.copyfile(tuned.index, folder / tuned.index.name)
    for file in tuned.files:
        skipped = sorted(  # of a pair that is resized only the rows that both have will be written
            (pair.tuned.offset, pair.tuned.offset + pair.size * TYPE_BITS[pair.tuned.dtype] // 8)
            for pair in pairs
            if pair.tuned.file == file
        )
        size = file.stat().st_size
        with file.open("rb") as source, (folder / file.name).open("wb") as target:
            target.truncate(size)
            start = 0
            for begin, end in [*skipped, (size, size)]:
                _copy_range(source.fileno(), target.fileno(), start, begin)
                start = end


def _copy_range(source: int, target: int, start: int, stop: int) -> None:
    while start < stop:
        data = os.pread(source, min(_CHUNK, stop - start), start)
        if not data:
            raise OSError(errno.EIO, "the checkpoint became shorter while it was read")
        view = memoryview(data)
        while view:
            done = os.pwrite(target, view, start)
            view = view[done:]
            start += done


def _write(file: Path, data: memoryview, offset: int) -> None:
    handle = os.open(file, os.O_WRONLY)
    try:
        while data:
            done = os.pwrite(handle, data, offset)
            data = data[done:]
            offset += done
    finally:
        os.close(handle)
