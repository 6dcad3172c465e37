"""A mixture's experts stored one by one in base and stacked in the tuned checkpoint, or the other way round.

transformers stacks experts as it loads them: a checkpoint it saves may hold either form, and older ones hold others.
Knows names and shapes. Both forms are cut into the same units, one projection of one expert, each of which is a whole
stretch of whatever stores it; so base can be read in the tuned checkpoint's form, and no bit is changed.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod

import numpy as np

from knowshift.weights.bits import Bits
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.header import TYPE_BITS, Tensor
from knowshift.weights.regions import unwrapped

_ONE = re.compile(r"(.+\.experts)\.(\d{1,5})\.(gate_proj|up_proj|down_proj|w1|w3|w2)\.weight$")
_STACK = re.compile(r"(.+\.experts)\.(gate_up_proj|down_proj)(?:\.weight)?$")
_PARTS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
# What Mixtral's and Granite's files call what transformers calls otherwise.
_RENAMED = (
    (".input_linear.weight", ".experts.gate_up_proj"),
    (".output_linear.weight", ".experts.down_proj"),
    (".router.layer.weight", ".router.weight"),
    (".block_sparse_moe.", ".mlp."),
)

_MOST = 99_999  # experts in a stack

Unit = tuple[str, tuple[int, ...]]  # what it is, and its shape


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of a stored tensor: its name, its first element, how many."""

    name: str
    start: int
    size: int


class Rearranged(Checkpoint):
    """A checkpoint some of whose tensors are read under other names and shapes.

    Args:
        stored: the checkpoint.
        tensors: what it is to be read as.
        pieces: of which stretches of ``stored`` each new tensor consists.
    """

    def __init__(self, stored: Checkpoint, tensors: dict[str, Tensor], pieces: dict[str, list[_Piece]]) -> None:
        super().__init__(stored.folder, tensors, {}, stored.index)
        self.files = stored.files
        self._stored = stored
        self._pieces = pieces
        self._ends = {name: list(accumulate(piece.size for piece in parts)) for name, parts in pieces.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Bits:
        """As of any checkpoint."""
        stop = self.tensors[name].size if stop is None else stop
        parts = [self._stored.read(*part) for part in self._parts(name, start, stop)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def prefetch(self, name: str, start: int, stop: int) -> None:
        """As of any checkpoint."""
        for part in self._parts(name, start, stop):
            self._stored.prefetch(*part)

    def _parts(self, name: str, start: int, stop: int) -> Iterable[tuple[str, int, int]]:
        """Where elements ``start`` to ``stop`` are stored: one stretch at least, if only an empty one."""
        if name not in self._pieces:
            yield name, start, stop
            return
        pieces, ends = self._pieces[name], self._ends[name]
        for number in range(min(bisect_right(ends, start), len(ends) - 1), len(ends)):
            piece = pieces[number]
            moved = piece.start - (ends[number] - piece.size)
            yield piece.name, start + moved, min(stop, ends[number]) + moved
            start = ends[number]
            if start >= stop:
                return


def rearranged(base: Checkpoint, tuned: Checkpoint, missing: Iterable[str], extra: Iterable[str]) -> Checkpoint:
    """``base``, of whose tensors those ``missing`` when tuned are read as the ``extra`` ones that they make up.

    A tensor of which only a part is needed stays beside them, so that it is still missing. Without any to
    read otherwise it is ``base`` itself.
    """
    found: dict[Unit, _Piece] = {}
    for name in missing:
        start = 0
        for what, shape in _units(base.tensors[name]):
            found[what, shape] = _Piece(name, start, prod(shape))
            start += prod(shape)
    pieces: dict[str, list[_Piece]] = {}
    for name in extra:
        parts = [found.get(unit) for unit in _units(tuned.tensors[name])]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts) and len({base.tensors[part.name].dtype for part in known}) == 1:
            pieces[name] = known
    used: Counter[str] = Counter()
    for known in pieces.values():
        for piece in known:
            used[piece.name] += piece.size
    tensors = {name: tensor for name, tensor in base.tensors.items() if used.get(name) != tensor.size}
    for name, known in pieces.items():
        first = base.tensors[known[0].name]
        size = sum(piece.size for piece in known) * TYPE_BITS[first.dtype] // 8
        tensors[name] = replace(first, name=name, shape=tuned.tensors[name].shape, bytes=size)
    return Rearranged(base, tensors, pieces) if pieces else base


def forms_differ(missing: Iterable[str], extra: Iterable[str]) -> bool:
    """Whether experts are stacked among the one names and stored one by one among the others."""
    left, right = (list(map(_plain, names)) for names in (missing, extra))
    return any(any(map(_ONE.match, one)) and any(map(_STACK.match, two)) for one, two in ((left, right), (right, left)))


def _plain(name: str) -> str:
    name = unwrapped(name)
    for old, new in _RENAMED:
        if name.endswith(old) or old.endswith("."):
            name = name.replace(old, new)
    return name


def _units(tensor: Tensor) -> list[Unit]:
    """What a tensor consists of, in the order of its elements."""
    name = _plain(tensor.name)
    if one := _ONE.match(name):
        layer, expert, part = one.groups()
        return [(f"{layer}.{int(expert)}.{_PARTS.get(part, part)}", tensor.shape)]
    stack = _STACK.match(name)
    if stack is None or len(tensor.shape) != 3 or not tensor.size or tensor.shape[0] > _MOST:
        return [(name, tensor.shape)]
    layer, part = stack.groups()
    experts, rows, columns = tensor.shape
    if part == "down_proj":
        return [(f"{layer}.{expert}.down_proj", (rows, columns)) for expert in range(experts)]
    if rows % 2:
        return [(name, tensor.shape)]
    half = (rows // 2, columns)
    return [(f"{layer}.{expert}.{side}", half) for expert in range(experts) for side in ("gate_proj", "up_proj")]
