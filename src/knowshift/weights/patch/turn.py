"""A patch put onto the tuned checkpoint, or taken back off the restored one.

Needs the patch and the one model; never the base. The model's tensors must be exactly those of the side that the
patch starts from, and what is made is checked to be exactly the other side before it gets its name.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from knowshift.errors import InputError
from knowshift.weights.bits import Bits
from knowshift.weights.card import card
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.matching import listed
from knowshift.weights.output import write_checkpoints
from knowshift.weights.pairing import Pair
from knowshift.weights.patch.container import Patch
from knowshift.weights.patch.contents import Expected, digests, leaf
from knowshift.weights.patch.manifest import Entry
from knowshift.weights.regions import classify
from knowshift.weights.strict import quoted
from knowshift.weights.walk import Tile

Side = Literal["tuned", "restored"]


def apply(patch: Path, model: Path, out: Path) -> Path:
    """Write the restored checkpoint that ``patch`` makes of the tuned one.

    Args:
        patch: the patch file.
        model: the tuned checkpoint's folder. It may be cut into files in any way; every tensor must be as it was.
        out: the folder to write: the model's files, with the model card of the restored checkpoint.

    Returns:
        ``out``.

    Raises:
        InputError: naming the file or tensor, if the patch is damaged or ``model`` is not the tuned one.
    """
    opened = Patch(patch)
    return _turn(opened, model, out, "tuned", opened.manifest.origin.card)


def revert(patch: Path, model: Path, out: Path, *, model_name: str | None = None) -> Path:
    """Write the tuned checkpoint again from the restored one; otherwise as ``apply``.

    Args:
        patch, model, out: the patch file, the restored checkpoint's folder and the folder to write.
        model_name: how the model card names the model; its path by default.
    """
    opened = Patch(patch)
    origin = opened.manifest.origin
    text = card(
        "A restoration taken back",
        f"The weights of `{origin.tuned}`, bit for bit, from a checkpoint in which a share of them had been set back "
        f"to those of `{origin.base}`.",
        base=origin.base,
        tuned=origin.tuned,
        command=["knowshift", "patch", "revert", str(patch), model_name or str(model), "--out", str(out)],
        facts={"weights taken back": f"{sum(entry.changed for entry in opened.manifest.tensors):,}"},
    )
    return _turn(opened, model, out, "restored", text)


def _turn(patch: Patch, model: Path, out: Path, start: Side, text: str) -> Path:
    if patch.path.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out}: cannot be written: it holds {patch.path}, which is being read")
    checkpoint = Checkpoint.open(model)
    _check_fits(patch, checkpoint)
    _check_side(patch, checkpoint, start)
    entries = {entry.name: entry for entry in patch.manifest.changed}
    block = patch.manifest.block
    expected = Expected(
        {
            entry.name: (patch.manifest.blocks(entry), entry.restored if start == "tuned" else entry.tuned)
            for entry in entries.values()
        }
    )

    def turned(entry: Entry, number: int) -> Bits:
        begin = number * block
        words = checkpoint.read(entry.name, begin, min(begin + block, entry.size)).copy()
        places, steps = patch.differences(entry, number)
        words[places] += steps if start == "tuned" else np.negative(steps)
        if not expected.made(entry.name, number, leaf(words.data)):
            raise InputError(
                f"{patch.path}: damaged: tensor {quoted(entry.name)} would not become what the patch promises"
            )
        return words

    def make(tile: Tile) -> list[Bits]:
        first, last = tile.start // block, -(-tile.stop // block)
        blocks = [turned(entries[tile.pair.name], number) for number in range(first, last)]
        whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return [whole[tile.start - first * block : tile.stop - first * block]]

    # Both sides of these pairs are the one model: what is written is asked of ``make``.
    pairs = [
        Pair(tensor.name, classify(tensor.name), tensor, tensor, checkpoint, checkpoint)
        for tensor in checkpoint.tensors.values()
        if tensor.name in entries
    ]
    return write_checkpoints(checkpoint, checkpoint, pairs, [out], lambda: [text], make, "writing")[0]


def _check_fits(patch: Patch, checkpoint: Checkpoint) -> None:
    entries = {entry.name: entry for entry in patch.manifest.tensors}
    made_for = f"{patch.path} was made for {quoted(patch.manifest.origin.tuned)}"
    if missing := [name for name in entries if name not in checkpoint.tensors]:
        raise InputError(f"{checkpoint.folder}: {listed(missing)} missing, which the patch has: {made_for}")
    if extra := [name for name in checkpoint.tensors if name not in entries]:
        raise InputError(f"{checkpoint.folder}: {listed(extra)} not in the patch: {made_for}")
    for name, tensor in checkpoint.tensors.items():
        entry = entries[name]
        if (tensor.dtype, tensor.shape) != (entry.dtype, entry.shape):
            raise InputError(
                f"{tensor.file}: tensor {quoted(name)} is {tensor.dtype} of shape {list(tensor.shape)}, in the patch "
                f"it is {entry.dtype} of shape {list(entry.shape)}: {made_for}"
            )


def _check_side(patch: Patch, checkpoint: Checkpoint, start: Side) -> None:
    found = digests(checkpoint, patch.manifest.block)
    entries, changed = patch.manifest.tensors, patch.manifest.changed
    if strange := [entry.name for entry in entries if found[entry.name] not in (entry.tuned, entry.restored)]:
        raise InputError(
            f"{checkpoint.folder}: {listed(strange)} neither as before nor as after {patch.path}, which was made for "
            f"{quoted(patch.manifest.origin.tuned)}"
        )
    other = [entry.name for entry in changed if found[entry.name] != getattr(entry, start)]
    if not other:
        return
    if len(other) < len(changed):
        raise InputError(
            f"{checkpoint.folder}: between the two sides of {patch.path}: {listed(other)} "
            f"{'restored' if start == 'tuned' else 'tuned'}, the others {start}"
        )
    if start == "tuned":
        raise InputError(f"{checkpoint.folder}: already applied: it holds the restored weights of {patch.path}")
    raise InputError(f"{checkpoint.folder}: nothing to revert: it holds the weights from before {patch.path}")
