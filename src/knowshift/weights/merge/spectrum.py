"""The singular value threshold of Gavish and Donoho (arXiv 1305.5870), and the subspace of a matrix above it.

Knows matrices in blocks of rows; nothing of checkpoints.
"""

from collections.abc import Iterable
from functools import cache
from math import pi, sqrt

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def coefficient(beta: float) -> float:
    """The best threshold for noise of known level, in units of that level times the square root of the longer side.

    ``beta`` is the matrix's shorter side over its longer. For square matrices it is 4 / sqrt(3).
    """
    return sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + sqrt(beta**2 + 14 * beta + 1)))


@cache
def noise_median(beta: float) -> float:
    """The median singular value of pure noise in the same units: root of the Marchenko-Pastur law's median.

    With the eigenvalue written as 1 + beta + 2 sqrt(beta) cos(t), its density over t is smooth everywhere, and its
    distribution function is summed by the trapezium rule.
    """
    t = np.linspace(0, pi, (1 << 16) + 1)
    # The edge t = pi is 0 / 0 in square matrices, with the limit 1 / sqrt(beta).
    below = 1 + beta + 2 * sqrt(beta) * np.cos(t)
    density = np.divide(np.sin(t) ** 2, below, out=np.full(t.size, 1.0 if beta == 1 else 0.0), where=below > 1e-12)
    upper = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    middle = np.interp(0.5, upper / upper[-1], t)
    return sqrt(1 + beta + 2 * sqrt(beta) * float(np.cos(middle)))


def threshold(values: Matrix, longer: int) -> float:
    """The best threshold when the noise is not known: its level is told from the median singular value.

    Args:
        values: all singular values of a matrix, as many as its shorter side has rows.
        longer: its longer side.
    """
    beta = values.size / longer
    return coefficient(beta) / noise_median(beta) * float(np.median(values))


def gram(blocks: Iterable[Matrix], shorter: int) -> Matrix:
    """The product of a matrix's transpose with itself, from its rows in blocks; only the upper triangle is filled."""
    from scipy.linalg import blas  # takes longer to import than most methods need to start

    total = np.zeros((shorter, shorter), order="F")
    for block in blocks:
        total = blas.dsyrk(1.0, block.T, beta=1.0, c=total, overwrite_c=True)
    return total


def singular_values(product: Matrix) -> Matrix:
    """All singular values, ascending, of the matrix whose ``gram`` is ``product``.

    The product squares them, so those below about 1e-8 of the largest are lost in rounding; the bulk of an update's
    lies far above.
    """
    from scipy.linalg import eigh

    squares = eigh(product, lower=False, eigvals_only=True, check_finite=False)
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def above_threshold(blocks: Iterable[Matrix], shorter: int, longer: int, scale: float) -> Matrix | None:
    """The right singular vectors of a matrix whose singular values exceed ``scale`` times the threshold.

    The matrix is never held: only its ``gram``, ``shorter`` squared, twice.

    Args:
        blocks: its rows in blocks, each of ``shorter`` columns.
        shorter, longer: its sides.
        scale: of the threshold; 1 is the published one.

    Returns:
        ``shorter`` x kept, orthonormal columns; None if all are kept.
    """
    from scipy.linalg import eigh

    product = gram(blocks, shorter)
    values = singular_values(product)
    kept = int(np.count_nonzero(values > scale * threshold(values, longer)))
    if kept == shorter:
        return None
    if not kept:
        return np.zeros((shorter, 0))
    wanted = (shorter - kept, shorter - 1)
    return np.asarray(eigh(product, lower=False, subset_by_index=wanted, overwrite_a=True, check_finite=False)[1])
