"""The mean of a table of facts by seeds, and its interval over both: other facts, and other trainings.

Facts and seeds are resampled independently of one another (the pigeonhole bootstrap, Owen 2007), and the deviation of
each is widened by sqrt(n / (n - 1)), without which three seeds would show two thirds of their variance (Rao and Wu
1988). Percentile interval.
"""

import numpy as np
import numpy.typing as npt

from knowshift.measure.statistics import RESAMPLES, Estimate
from knowshift.seeds import derive

CONFIDENCE = 0.95

Floats = npt.NDArray[np.float64]


def crossed_mean(
    table: npt.ArrayLike, *, ends: tuple[float, float] | None = None, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """The mean of ``table`` with its 95 % interval.

    Args:
        table: (seeds, facts) numbers, such as hits, or differences of hits between two methods of the same seeds on
            the same facts. With one seed the interval is over facts alone.
        ends: the least and the most that a mean can be, where there are such.
        seed: of the resampling.
        resamples: how many.

    Raises:
        ValueError: for a table that is empty, or of other than two dimensions.
    """
    numbers = np.asarray(table, dtype=np.float64)
    if numbers.ndim != 2 or not numbers.size:
        raise ValueError(f"a table of seeds by facts is needed, got the shape {numbers.shape}")
    generator = np.random.default_rng(derive(seed, "crossed bootstrap"))
    over_seeds, over_facts = (_weights(size, resamples, generator) for size in numbers.shape)
    drawn = np.einsum("rs,rs->r", over_seeds, over_facts @ numbers.T)
    if ends is not None:
        drawn = drawn.clip(*ends)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = float(numbers.mean())
    return Estimate(value, min(float(low), value), max(float(high), value))


def _weights(size: int, resamples: int, generator: np.random.Generator) -> Floats:
    """(resamples, size) weights of a mean, each row summing to 1."""
    if size == 1:
        return np.ones((resamples, 1))
    counts = generator.multinomial(size, np.full(size, 1 / size), size=resamples)
    widened: Floats = 1 / size + (counts / size - 1 / size) * np.sqrt(size / (size - 1))
    return widened
