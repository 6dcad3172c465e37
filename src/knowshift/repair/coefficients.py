"""One coefficient a tensor, learned: how much of each tensor's update gives knowledge back and keeps the task.

With theta0 the base and theta the tuned weights, theta_m(a) = theta0_m + a_m * (theta_m - theta0_m). Of the search
part, let K(a) be the mean loss of known facts, asked as they are measured, and T(a) that of task items (``lessons``).
The coefficients minimise

    K(a) + weight * T(a) + pull * mean_m (1 - a_m)^2    over a in [0, 1]^tensors, from a = 1,

so that a tensor whose update matters to neither stays tuned. The slope of the first two along a_m is the inner product
<d(K + weight * T) / d theta_m, theta_m - theta0_m>, so one step costs one backward pass through the model, whatever
the number of tensors, and Adam moves the coefficients (``weights.coefficients``). The gradient is taken at the weights
as they would be stored. Several weights, and each result with its removals made stronger or weaker,
a_m = 1 - strength * (1 - a_m) within [0, 1], give points of a frontier; interpolation is the case of equal
coefficients, and restoring whole matrices that of 0 and 1.

Memory beside the model: its gradient, and one tile. A result is a file, so a killed search goes on.
"""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from knowshift.files import read_json, write_json
from knowshift.progress import bar
from knowshift.repair.lessons import Lessons
from knowshift.repair.space import REGION, Candidate
from knowshift.seeds import derive
from knowshift.weights.bits import decode
from knowshift.weights.coefficients import Coefficients, slope
from knowshift.weights.merge.coefficients import Coefficients as Kept
from knowshift.weights.pairing import Pair
from knowshift.weights.sweep import Sweep
from knowshift.weights.walk import tiles

METHOD = "coefficients"
WEIGHTS = (1.0, 8.0)
STRENGTHS = (0.6, 1.0, 1.5)
STEPS, LEAST = 40, 10
PULL = 0.05
# Facts, and items, for a step.
FACTS, ITEMS = 16, 8


def candidates(sweep: Sweep, lessons: Lessons, folder: Path, seed: int, seconds: float) -> list[Candidate]:
    """Learned coefficients at several weights of the task, and each at several strengths.

    Args:
        sweep: of the model that ``lessons`` read; its tuned side is on disk.
        folder: for ``coefficients-<weight>.json``; what is there is not learned again.
        seed: of the order of the lessons, and of rounding.
        seconds: for all of them; there are fewer steps where ``STEPS`` would take longer, but ``LEAST``.
    """
    found = []
    end = time.monotonic() + seconds
    for number, weight in enumerate(WEIGHTS):
        file = folder / f"{METHOD}-{weight:g}.json"
        if not file.exists():
            allowed = (end - time.monotonic()) / (len(WEIGHTS) - number)
            write_json(file, learn(sweep, lessons, weight=weight, seed=seed, seconds=allowed))
        values: dict[str, float] = read_json(file)
        for strength in STRENGTHS:
            kept = {name: stronger(value, strength) for name, value in values.items()}
            settings = {"weight": weight, "strength": strength}
            found.append(Candidate(f"{METHOD}-{weight:g}-{strength:g}", METHOD, Kept(kept), settings, REGION, seed))
    return found


def stronger(value: float, strength: float) -> float:
    """A coefficient whose removal, 1 - value, is multiplied by ``strength``, within [0, 1]."""
    return min(1.0, max(0.0, 1 - strength * (1 - value)))


def learn(
    sweep: Sweep,
    lessons: Lessons,
    *,
    weight: float,
    pull: float = PULL,
    steps: int = STEPS,
    seconds: float = math.inf,
    facts: int = FACTS,
    items: int = ITEMS,
    seed: int = 0,
) -> dict[str, float]:
    """The coefficients by the tensors' names; the sweep's model is as it was, afterwards.

    Args:
        weight: of the task's loss.
        pull: of the pull towards 1.
        steps: of Adam; fewer, but ``LEAST``, if they would take longer than ``seconds``.
        facts, items: for a step, in an order drawn under ``seed``, again and again.
    """
    places = sweep.places(REGION)
    groups = _tied(places)
    asked = _rounds(len(lessons.passages["knowledge"]), facts, derive(seed, METHOD, "knowledge"))
    done = _rounds(len(lessons.passages["task"]), items, derive(seed, METHOD, "task"))

    def step(coefficients: Coefficients) -> None:
        lessons.backward("knowledge", next(asked))
        lessons.backward("task", next(done), weight)
        found = slopes(lessons.model, [places[group[0]] for group in groups])
        coefficients.move(found - 2 * pull / len(groups) * (1 - coefficients.values))
        put(Kept(_named(places, groups, coefficients.values)))

    with sweep.moving(region=REGION, seed=seed) as put:
        begun = time.monotonic()
        if seconds < math.inf:  # how long is a step?
            step(Coefficients(len(groups), 1))
            steps = max(min(LEAST, steps), min(steps, int(seconds / (time.monotonic() - begun))))
            put(Kept({}))
        coefficients = Coefficients(len(groups), steps)
        with bar("learning coefficients", steps) as advance:
            for number in range(steps):
                if number >= LEAST and time.monotonic() - begun > seconds:
                    break  # the machine became slower than it was
                step(coefficients)
                advance(1)
    return _named(places, groups, coefficients.values)


def slopes(model: torch.nn.Module, places: Sequence[tuple[Pair, Tensor]]) -> Tensor:
    """(places,) the slope along the coefficient of each tensor, in float64; forgets the gradients."""
    found = torch.zeros(len(places), dtype=torch.float64)
    for number, ((entry, _), own) in enumerate(zip(places, gradients(model, places), strict=True)):
        if own is None:
            continue
        for tile in tiles([entry], 1 << 22):
            left, right = (
                torch.from_numpy(decode(read(tile.start, tile.stop), entry.tuned.dtype)).to(own.device)
                for read in (entry.base_bits, entry.tuned_bits)
            )
            found[number] += slope(own[tile.start : tile.stop], left, right).cpu()
    model.zero_grad(set_to_none=True)
    return found


def gradients(model: torch.nn.Module, places: Sequence[tuple[Pair, Tensor]]) -> Iterator[Tensor | None]:
    """The gradient of each tensor, flat; None for a buffer, or what the texts did not use."""
    owners = {parameter.untyped_storage().data_ptr(): parameter for parameter in model.parameters()}
    for _, place in places:
        owner = owners.get(place.untyped_storage().data_ptr())
        if owner is None or owner.grad is None:
            yield None
            continue
        # Where in its parameter the tensor lies, it lies in the gradient.
        offset = owner.grad.storage_offset() + place.storage_offset() - owner.storage_offset()
        yield owner.grad.as_strided(place.shape, place.stride(), offset).reshape(-1)


def _tied(places: Sequence[tuple[Pair, Tensor]]) -> list[list[int]]:
    """Numbers of the tensors that have one coefficient: those that are one in the model."""
    groups: dict[tuple[int, int], list[int]] = {}
    for number, (_, place) in enumerate(places):
        groups.setdefault((place.data_ptr(), place.numel()), []).append(number)
    return list(groups.values())


def _named(places: Sequence[tuple[Pair, Tensor]], groups: Sequence[Sequence[int]], values: Tensor) -> dict[str, float]:
    shared = {number: value for group, value in zip(groups, values.tolist(), strict=True) for number in group}
    return {entry.name: shared[number] for number, (entry, _) in enumerate(places)}


def _rounds(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """``size`` of ``count`` numbers at a time, in an order drawn under ``seed``, again and again."""
    order = sorted(range(count), key=lambda number: derive(seed, number))
    place = 0
    while True:
        yield [order[(place + step) % count] for step in range(min(size, count))]
        place += size
