"""How much memory and disk a cell takes, before it is done: from the size of its model, or from cells like it.

An estimate is the arithmetic of what a step holds; once a cell of the same kind and model is done, what that one held
takes its place.
"""

from collections.abc import Iterable
from functools import lru_cache
from math import prod

from knowshift.study.cell import Task
from knowshift.study.index import Standing

GB = 10**9
# A process with torch and transformers imported, and what a step needs whatever the model.
LIBRARIES = GB
# Bytes a parameter: weights in float32 as on a CPU; with gradients and Adam's two moments when training; two models
# in drift, and the weights that were put back beside the model in a sweep. A diff reads tiles.
PER_PARAMETER = {"mastery": 4, "eval": 4, "train": 16, "drift": 8, "diff": 1, "sweep": 8, "confirm": 8}
# Of logits, activations and caches, for each parameter.
WORKING = 2
# On what a cell like it held: no two hold quite the same.
MARGIN = 1.1


class Needs:
    """Memory of cells, from their models and from the cells that are done."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], int] = {}

    def learn(self, tasks: Iterable[tuple[Task, Standing]]) -> None:
        """Take note of what finished cells held."""
        for task, standing in tasks:
            if standing.peak_bytes:
                name = (task.kind, str(task.options.get("model")))
                self._held[name] = max(self._held.get(name, 0), standing.peak_bytes)

    def __call__(self, task: Task) -> int:
        """Bytes of memory that a cell takes."""
        if "bytes" in task.options:  # a stub says so itself
            return int(task.options["bytes"])
        held = self._held.get((task.kind, str(task.options.get("model"))))
        if held is not None:
            return int(MARGIN * held)
        return estimated(task.kind, task.places.get("model"))


def estimated(kind: str, model: str | None) -> int:
    """Bytes of memory by arithmetic alone."""
    if kind not in PER_PARAMETER or model is None:
        return LIBRARIES // 2
    return LIBRARIES + (PER_PARAMETER[kind] + WORKING) * parameters(model)


@lru_cache
def parameters(model: str) -> int:
    """How many weights a model has, from the headers of its files."""
    from knowshift.models import resolve
    from knowshift.weights.checkpoint import Checkpoint

    return sum(prod(tensor.shape) for tensor in Checkpoint.open(resolve(model)).tensors.values())


@lru_cache
def stored(model: str) -> int:
    """Bytes of a model's weight files, which a trained copy takes too."""
    from knowshift.models import resolve
    from knowshift.weights.checkpoint import Checkpoint

    return sum(file.stat().st_size for file in Checkpoint.open(resolve(model)).files)
