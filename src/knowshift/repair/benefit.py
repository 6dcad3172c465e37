"""A mask by measured benefit: a weight's update is taken back only where that helps.

With theta0 the base, theta the tuned weights and d = theta0 - theta, taking back the update of weight i moves it by
d_i. What that does to a loss L is told by the gradient on the way from theta to theta0,

    e_i(L) = d_i * mean_j dL/dtheta_i at theta0 + a_j * (theta - theta0),

the mean over ``POINTS`` a_j in (0, 1). One point a = 1 is the first-order effect at the tuned model; the middles of
equal steps make the sum of all e_i the change of L from tuned to base, exactly so for a quadratic loss (integrated
gradients, Sundararajan et al., arXiv 1703.01365): so they see curvature, off the diagonal too, for which Fisher
information at the tuned model would need a third copy of the weights. With K the loss of known facts and T that of task
items (``lessons``), taking i back gains

    g_i = -(e_i(K) + weight * e_i(T)),

and those with the largest g_i > 0 are taken back, bit for bit, for several shares of the weights. Effects are kept on
disk in bfloat16, 2 bytes a weight and loss; memory beside the model: its gradient, and one tile. What is there is not
measured again.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from knowshift.errors import InputError
from knowshift.files import atomic_file
from knowshift.progress import bar
from knowshift.repair.coefficients import gradients
from knowshift.repair.lessons import Lessons
from knowshift.repair.objective import Kind
from knowshift.repair.space import REGION, Candidate, Interpolation
from knowshift.weights.bits import Bits, Values, decode, encode, pick
from knowshift.weights.merge.method import Make
from knowshift.weights.pairing import Pair
from knowshift.weights.ranking import exact
from knowshift.weights.sweep import Sweep
from knowshift.weights.walk import Tile, tiles, walk

METHOD = "benefit"
WEIGHTS = (1.0, 8.0)
SHARES = (0.02, 0.1, 0.25, 1.0)
POINTS = (0.25, 0.75)
# Facts and items that effects are measured on, at most and at least.
MOST: dict[Kind, int] = {"knowledge": 192, "task": 96}
LEAST = 32
_BINS = 1 << 16
_BLOCK = 1 << 22  # elements: 16 MB in float32


def candidates(sweep: Sweep, lessons: Lessons, folder: Path, seed: int, seconds: float) -> list[Candidate]:
    """Masks for several weights of the task and shares of the weights; shares that come to the same mask once.

    Args:
        sweep: of the model that ``lessons`` read; its tuned side is on disk.
        folder: for ``benefit-<loss>.bf16``, which the candidates read whenever they are made.
        seed: of rounding on the way.
        seconds: for measuring; on fewer facts and items where all would take longer, but on ``LEAST``.
    """
    measure(sweep, lessons, folder, seed=seed, seconds=seconds)
    pairs = [entry for entry, _ in sweep.places(REGION)]
    found = []
    for weight in WEIGHTS:
        known: set[float] = set()
        for share, least in zip(SHARES, thresholds(pairs, folder, weight, SHARES), strict=True):
            if least not in known and np.isfinite(least):
                known.add(least)
                settings = {"weight": weight, "share": share}
                how = Benefit(folder, weight, least)
                found.append(Candidate(f"{METHOD}-{weight:g}-{share:g}", METHOD, how, settings, REGION, seed))
    return found


@dataclass(frozen=True, slots=True)
class Benefit:
    """Base's bits where that gains at least ``least``, the tuned bits elsewhere.

    Attributes:
        folder: with the effects that ``measure`` wrote for the same tensors.
        weight: of the task's loss.
        least: in nats an answer; more than 0.
    """

    folder: Path
    weight: float
    least: float

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Make:
        """The new bits of a tile."""
        gains = Gains(self.folder, pairs, self.weight)

        def make(tile: Tile) -> Bits:
            left, right = (read(tile.start, tile.stop) for read in (tile.pair.base_bits, tile.pair.tuned_bits))
            return pick(gains(tile) >= np.float32(self.least), left, right)

        return make


class Gains:
    """The gains g_i of any tile, from the effects on disk."""

    def __init__(self, folder: Path, pairs: Sequence[Pair], weight: float) -> None:
        self._files = [_file(folder, kind) for kind in MOST]
        self._starts = np.cumsum([0, *(entry.size for entry in pairs)])
        self._weight = np.float32(weight)
        for file in self._files:
            if not file.exists() or file.stat().st_size != 2 * self._starts[-1]:
                raise InputError(f"{file}: is not of these models; remove it and it is measured again")

    def __call__(self, tile: Tile) -> Values:
        """float32; 0 for what is no number."""
        place = 2 * int(self._starts[tile.number] + tile.start)
        knowledge, task = (
            decode(np.fromfile(file, np.uint16, tile.stop - tile.start, offset=place), "BF16") for file in self._files
        )
        gain = -(knowledge + self._weight * task)
        gain[~np.isfinite(gain)] = 0
        return gain


def measure(
    sweep: Sweep,
    lessons: Lessons,
    folder: Path,
    *,
    points: Sequence[float] = POINTS,
    seed: int = 0,
    seconds: float = math.inf,
) -> None:
    """Write the effects e_i of both losses, tensor by tensor; the sweep's model is as it was, afterwards.

    Args:
        points: shares of the update at which gradients are taken.
        seed: of rounding there.
        seconds: for both losses.
    """
    places = sweep.places(REGION)
    for kind in MOST:
        if _file(folder, kind).exists():
            continue
        some = range(_affordable(lessons, kind, seconds / len(MOST) / len(points)))
        with sweep.moving(region=REGION, seed=seed) as put, bar(f"measuring what {kind} needs", len(points)) as advance:
            for point in points:
                put(Interpolation(point))
                lessons.backward(kind, some, 1 / len(points))
                advance(1)
        with atomic_file(_file(folder, kind)) as partial, partial.open("wb") as out:
            for (entry, _), gradient in zip(places, gradients(lessons.model, places), strict=True):
                for tile in tiles([entry], _BLOCK):
                    out.write(_effect(tile, gradient).tobytes())
        lessons.model.zero_grad(set_to_none=True)


def _affordable(lessons: Lessons, kind: Kind, seconds: float) -> int:
    """How many facts or items can be read forwards and back in so many seconds; the first ones are read to find out."""
    most = min(MOST[kind], len(lessons.passages[kind]))
    if seconds == math.inf or most <= LEAST:
        return most
    begun = time.monotonic()
    lessons.loss(kind, range(LEAST))
    each = 3 * (time.monotonic() - begun) / LEAST  # a backward pass costs two forward ones
    return max(LEAST, min(most, int(seconds / each)))


def thresholds(pairs: Sequence[Pair], folder: Path, weight: float, shares: Sequence[float]) -> list[float]:
    """For each share the least gain that is taken: at most floor(n * share) weights gain as much, and all of those.

    Equal gains go together, and no gain of 0 or less counts; infinity where not even the largest may go.
    """
    gains = Gains(folder, pairs, weight)
    size = sum(entry.size for entry in pairs)
    wanted = [size * exact(share).numerator // exact(share).denominator for share in shares]
    high = _counts(pairs, lambda tile: _keys(gains(tile)) >> np.uint32(16))
    above = np.append(np.cumsum(high[::-1])[::-1], 0)  # gains in this bin and in higher ones
    places = [int(np.argmax(above <= count)) - 1 for count in wanted]  # the bin that is taken in part
    low: dict[int, Any] = {}
    for place in set(places) - {-1}:
        low[place] = _counts(pairs, lambda tile, place=place: _within(_keys(gains(tile)), place))
    found = []
    for count, place in zip(wanted, places, strict=True):
        key, taken = 1, int(above[0])
        if place >= 0:
            rest = np.append(np.cumsum(low[place][::-1])[::-1], 0) + above[place + 1]
            first = int(np.argmax(rest <= count))
            key, taken = (place << 16) + first, int(rest[first])
        found.append(float(np.uint32(key).view(np.float32)) if taken else float("inf"))
    return found


def _effect(tile: Tile, gradient: torch.Tensor | None) -> Bits:
    """d_i times the gradient, as bfloat16."""
    kind = tile.pair.tuned.dtype
    if gradient is None:
        return np.zeros(tile.stop - tile.start, np.uint16)
    own = gradient[tile.start : tile.stop].float().cpu().numpy()
    base, tuned = (decode(read(tile.start, tile.stop), kind) for read in (tile.pair.base_bits, tile.pair.tuned_bits))
    return encode(own * (base - tuned), "BF16")


def _keys(gain: Values) -> npt.NDArray[np.uint32]:
    """Unsigned integers that order like the gains above 0; those alone."""
    keys: npt.NDArray[np.uint32] = gain[gain > 0].view(np.uint32)
    return keys


def _within(keys: npt.NDArray[np.uint32], place: int) -> npt.NDArray[np.uint32]:
    """The low bits of the keys whose high bits are ``place``."""
    low: npt.NDArray[np.uint32] = keys[keys >> np.uint32(16) == place] & np.uint32(0xFFFF)
    return low


def _counts(pairs: Sequence[Pair], bins: Any) -> npt.NDArray[np.int64]:
    total = np.zeros(_BINS, np.int64)
    for _, counts in walk(pairs, lambda tile: np.bincount(bins(tile), minlength=_BINS), "ranking what helps"):
        total += counts
    return total


def _file(folder: Path, kind: Kind) -> Path:
    return folder / f"{METHOD}-{kind}.bf16"
