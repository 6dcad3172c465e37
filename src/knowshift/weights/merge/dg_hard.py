"""DG-Hard (arXiv 2605.20296): of each matrix's update keep the singular values that stand out of the noise.

    D = tuned - base = U diag(s) V',   merged = base + U diag(s where s > w(b) s_noise, else 0) V'

with Gavish and Donoho's threshold (see ``spectrum``): b is the matrix's shorter side over its longer, w(b) their
coefficient, and the noise level is told from the median singular value. As in the paper's released code, vectors and
matrices of fewer than 1,024 elements stay tuned, and embeddings count as matrices. A tensor of more than two
dimensions is taken as a stack of matrices, one for each expert.

Singular values and vectors come from the Gram matrix of the shorter side, in float64, from blocks of the matrix: no
decomposition of the whole is held. What is held for one matrix of shorter side n, of which k values stay: twice n
squared in float64 while it is worked out, then n x k, and for a matrix wider than tall k rows of it besides. An
lm_head of 128,256 x 8,192 so takes about 1 GB and 8,192 cubed operations a few times over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite

import numpy as np

from knowshift.errors import InputError
from knowshift.weights.bits import Bits, decode, encode
from knowshift.weights.merge.method import Make, finite_values
from knowshift.weights.merge.spectrum import Matrix, above_threshold
from knowshift.weights.merge.tensors import Latest
from knowshift.weights.pairing import Pair
from knowshift.weights.walk import Tile

_SMALLEST = 1024
_BLOCK = 1 << 22  # elements of a block: 32 MB in float64


@dataclass(frozen=True, slots=True)
class Stack:
    """A tensor as matrices of ``rows`` x ``columns``, one after the other."""

    pair: Pair
    rows: int
    columns: int

    def update(self, matrix: int, first: int, last: int) -> Matrix:
        """tuned - base of rows ``first`` to ``last`` of one matrix, exactly."""
        start = (matrix * self.rows + first) * self.columns
        stop = start + (last - first) * self.columns
        return self._difference(start, stop).reshape(last - first, self.columns)

    def blocks(self, matrix: int) -> Iterator[Matrix]:
        """One matrix's update in blocks along its longer side; each row spans the shorter."""
        if self.columns <= self.rows:
            step = max(_BLOCK // self.columns, 1)
            for first in range(0, self.rows, step):
                yield self.update(matrix, first, min(first + step, self.rows))
        else:
            step = max(_BLOCK // self.rows, 1)
            for first in range(0, self.columns, step):
                yield self._across(matrix, first, min(first + step, self.columns))

    def _across(self, matrix: int, first: int, last: int) -> Matrix:
        """Columns ``first`` to ``last`` of one matrix's update, as rows."""
        if last - first == self.columns:
            return self.update(matrix, 0, self.rows).T
        update = np.empty((self.rows, last - first))
        for row in range(self.rows):
            start = (matrix * self.rows + row) * self.columns
            update[row] = self._difference(start + first, start + last)
        return update.T

    def _difference(self, start: int, stop: int) -> Matrix:
        tile = Tile(0, self.pair, start, stop)
        base, tuned = finite_values(tile, self.pair.base_bits(start, stop), self.pair.tuned_bits(start, stop))
        return tuned.astype(np.float64) - base


@dataclass(frozen=True, slots=True)
class Filter:
    """The part of one matrix's update that stays, as a product.

    Attributes:
        vectors: shorter side x kept, orthonormal.
        rest: kept x columns where the matrix is wider than tall, else None: there the rows themselves take part.
    """

    vectors: Matrix
    rest: Matrix | None


@dataclass(frozen=True, slots=True)
class DgHard:
    """Keep the part of every matrix's update that stands out of the noise.

    Attributes:
        scale: of the threshold; 1 is the published method, 0 keeps everything.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, int | float) and isfinite(self.scale) and self.scale >= 0):
            raise InputError(f"--scale {self.scale}: must be a number from 0")

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Make:
        """The new bits of a tile."""
        stacks = [_stack(pair) for pair in pairs]
        filters = Latest[tuple[int, int], Filter | None](partial(_filter, stacks, self.scale))

        def make(tile: Tile) -> Bits:
            right = tile.pair.tuned_bits(tile.start, tile.stop)
            stack = stacks[tile.number]
            if stack is None:
                return right
            parts = []
            for matrix, start, stop in _matrices(stack, tile):
                chosen = filters((tile.number, matrix))
                parts.append(
                    _filtered(stack, chosen, matrix, start, stop) if chosen else tile.pair.tuned_bits(start, stop)
                )
            return np.concatenate(parts)

        return make


def _stack(pair: Pair) -> Stack | None:
    """``pair`` as matrices; None if it stays as it is."""
    shape = pair.shape
    if len(shape) < 2 or pair.size < _SMALLEST:
        return None
    rows, columns = shape[-2:]
    return Stack(pair, rows, columns) if rows * columns >= _SMALLEST else None


def _matrices(stack: Stack, tile: Tile) -> Iterator[tuple[int, int, int]]:
    """Number, first and last element of the parts of ``tile`` that lie in one matrix each."""
    size = stack.rows * stack.columns
    for matrix in range(tile.start // size, (tile.stop - 1) // size + 1):
        yield matrix, max(tile.start, matrix * size), min(tile.stop, (matrix + 1) * size)


def _filter(stacks: Sequence[Stack | None], scale: float, key: tuple[int, int]) -> Filter | None:
    """What stays of one matrix; None if all of it does."""
    number, matrix = key
    stack = stacks[number]
    assert stack is not None
    shorter, longer = sorted((stack.rows, stack.columns))
    vectors = above_threshold(stack.blocks(matrix), shorter, longer, scale)
    if vectors is None:
        return None
    rest = None
    if stack.columns > stack.rows:
        rest = np.empty((vectors.shape[1], stack.columns))
        first = 0
        for block in stack.blocks(matrix):
            rest[:, first : first + len(block)] = (block @ vectors).T
            first += len(block)
    return Filter(vectors, rest)


def _filtered(stack: Stack, chosen: Filter, matrix: int, start: int, stop: int) -> Bits:
    """base + what stays, of elements ``start`` to ``stop`` of the tensor, all within one matrix."""
    left = stack.pair.base_bits(start, stop)
    if not chosen.vectors.shape[1]:
        return left
    origin = matrix * stack.rows * stack.columns
    first, last = (start - origin) // stack.columns, -(-(stop - origin) // stack.columns)
    if chosen.rest is None:
        kept = (stack.update(matrix, first, last) @ chosen.vectors) @ chosen.vectors.T
    else:
        kept = chosen.vectors[first:last] @ chosen.rest
    skipped = start - origin - first * stack.columns
    kept = kept.reshape(-1)[skipped : skipped + stop - start]
    dtype = stack.pair.tuned.dtype
    return encode((decode(left, dtype) + kept).astype(np.float32), dtype)
