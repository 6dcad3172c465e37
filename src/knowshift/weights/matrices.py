"""Each matrix's norms, and how many directions its update has.

Knows pairs; nothing of rankings. Norms cost one more reading of both checkpoints. Ranks cost, for a matrix of
shorter side n and longer side m, n**2 * m operations for the Gram matrix of its update and some n**3 more for its
eigenvalues, and hold n**2 numbers of 8 bytes twice: seconds for a model of half a billion weights, hours for one
of seventy. The update is exact in float64, but its Gram matrix squares the singular values, so those below about
1e-8 of the largest are lost in rounding.
"""

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np
import polars as pl

from knowshift.weights.bits import decode
from knowshift.weights.merge.dg_hard import Stack
from knowshift.weights.merge.spectrum import Matrix, gram, singular_values
from knowshift.weights.pairing import Pair
from knowshift.weights.walk import Tile, progress

_SCHEMA = {
    "name": pl.String,
    "matrix": pl.Int64,
    "layer": pl.Int64,
    "module": pl.String,
    "rows": pl.Int64,
    "columns": pl.Int64,
    "base_norm": pl.Float64,
    "tuned_norm": pl.Float64,
    "update_norm": pl.Float64,
    "cosine": pl.Float64,
    "effective_rank": pl.Float64,
    "stable_rank": pl.Float64,
}


def matrices(pairs: Sequence[Pair]) -> pl.DataFrame:
    """One row for each matrix; a tensor of more dimensions is a stack of them, one for each expert.

    Columns: name, matrix (its place in the stack), layer, module, rows, columns; base_norm, tuned_norm and
    update_norm (Frobenius); cosine of base and tuned as vectors; effective_rank of the update, exp of the entropy
    of its singular values divided by their sum (Roy and Vetterli 2007); stable_rank, its squared Frobenius norm
    over its largest squared singular value. Null where a norm that divides is 0.
    """
    rows = []
    stacks = [Stack(pair, *pair.shape[-2:]) for pair in pairs if len(pair.shape) > 1 and pair.size]
    elements = sum(pair.size for pair in pairs)
    with progress("ranks of matrices", elements) as advance:
        advance(elements - sum(stack.pair.size for stack in stacks))
        for stack in stacks:
            pair, size = stack.pair, stack.rows * stack.columns
            for matrix in range(pair.size // size):
                norms = _norms(pair, matrix * size, (matrix + 1) * size)
                place = (pair.name, matrix, pair.place.layer, pair.place.module, stack.rows, stack.columns)
                rows.append((*place, *norms, *_ranks(_values(stack, matrix))))
                advance(size)
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _values(stack: Stack, matrix: int) -> Matrix:
    """All singular values of one matrix's update, ascending."""
    return singular_values(gram(stack.blocks(matrix), min(stack.rows, stack.columns)))


def _norms(pair: Pair, start: int, stop: int) -> tuple[float, float, float, float | None]:
    """Norms of base, tuned and update, and the cosine between the first two."""
    sums = np.zeros(4)
    for part in _parts(pair, start, stop):
        base, tuned = (
            decode(side, pair.tuned.dtype).astype(np.float64)
            for side in (pair.base_bits(part.start, part.stop), pair.tuned_bits(part.start, part.stop))
        )
        update = tuned - base
        sums += (base @ base, tuned @ tuned, update @ update, base @ tuned)
    left, right, update_norm = (sqrt(value) for value in sums[:3])
    return left, right, update_norm, float(sums[3]) / (left * right) if left and right else None


def _parts(pair: Pair, start: int, stop: int) -> Iterator[Tile]:
    return Tile(0, pair, start, stop).cut()


def _ranks(values: Matrix) -> tuple[float | None, float | None]:
    """Effective and stable rank."""
    total = values.sum()
    if not total:
        return None, None
    shares = values[values > 0] / total
    return float(np.exp(-(shares @ np.log(shares)))), float((values @ values) / values[-1] ** 2)
