"""``--dry-run``: what a plan would do, each cell with its command, and what it takes in time, memory and disk.

Cells that are done count nothing. Time is reckoned from cells of the same kind and model that are done in this folder,
and for kinds without any from a short calibration; memory as the scheduler reckons it; disk from the sizes of models.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowshift.files import free_room
from knowshift.memory import free_memory
from knowshift.study import index
from knowshift.study.calibrate import FACTS, Rate, calibrate
from knowshift.study.cell import Task, ordered
from knowshift.study.commands import command
from knowshift.study.curve import METHODS
from knowshift.study.executors.local import MEMORY_SHARE, default_workers, gpus, processors
from knowshift.study.grid import grid
from knowshift.study.ground import Ground, ground
from knowshift.study.needs import GB, Needs, parameters, stored
from knowshift.study.pace import spoken
from knowshift.study.plan import Plan
from knowshift.study.run import held_in

# Bytes a parameter that a training keeps on disk to go on from: weights, and the optimizer's two moments, in float32.
RESUMING = 12
# Bytes of one fact's row in a table of answers, packed: long answers take more.
ROW_BYTES = 200


@dataclass(frozen=True, slots=True)
class Units:
    """The size of a cell in the units of its rate.

    Attributes:
        count: facts asked, of every model of a sweep; updates of training.
        models: models that a sweep puts in place.
    """

    count: int
    models: int = 0


def lines(plan: Plan, out: Path, *, workers: int | None = None) -> Iterator[str]:
    """What ``--dry-run`` prints; nothing is written."""
    found = ground(plan)
    made = grid(plan, found, held_in(out))
    tasks = [cell.as_task() for cell in ordered(made.cells)]
    states = {task.key: index.stands(out, task) for task in tasks}
    to_do = [task for task in tasks if states[task.key].state != "done"]
    for task in to_do:
        yield f"{_named(task)}\n    {command(task, out)}"
    for one in made.missing:
        yield f"none: {one.kind} {_labels(one.labels)}: {one.why}"
    yield ""
    yield f"{len(tasks)} cells, {len(tasks) - len(to_do)} done, {len(made.missing)} that there cannot be"
    if not to_do:
        return
    needs = Needs()
    needs.learn((task, states[task.key]) for task in tasks)
    sizes = [needs(task) for task in to_do]
    at_once = workers or default_workers(processors(), len(gpus()), int(MEMORY_SHARE * free_memory()), sizes)
    at_once = min(at_once, len(to_do))
    yield from _time(plan, found, tasks, to_do, states, at_once)
    yield f"memory: the largest cell {max(sizes) / GB:.1f} GB; free are {free_memory() / GB:.1f} GB"
    yield _disk(plan, found, to_do, at_once, out)
    if any(task.options.get("size") == "all" for task in to_do) or _unknown(plan, made.cells, out):
        yield "sizes are as the plan asks until mastery is scored: a level that holds fewer facts takes less"


def _time(
    plan: Plan, found: Ground, tasks: list[Task], to_do: list[Task], states: Mapping[str, Any], at_once: int
) -> Iterator[str]:
    """Seconds by kind, and all of it."""
    facts = {source.digest: len(source.facts) for source in found.splits.values()}
    facts |= {source.digest: len(found.splits[split].facts) for split, source in found.shown.items()}
    rates: dict[str, dict[str, Rate]] = {}
    seconds: dict[str, float] = {}
    known: dict[tuple[str, str], list[tuple[Units, float]]] = {}
    for task in tasks:
        if states[task.key].state == "done":
            known.setdefault((_rate(task), task.labels["model"]), []).append(
                (units(task, facts), states[task.key].seconds)
            )
    for task in to_do:
        model, size = task.labels["model"], units(task, facts)
        if before := known.get((_rate(task), model)):
            each = sum(took for _, took in before) / max(1, sum(_size(one) for one, _ in before))
            taken = each * _size(size)
        elif task.kind == "select":
            taken = 0.0
        else:
            if model not in rates:
                threads = max(1, processors() // at_once)
                rates[model] = calibrate(plan, model, found.splits["train"].facts[: FACTS[-1]], threads)
            rate = rates[model][_rate(task)]
            taken = rate.fixed + rate.each * size.count + rate.between * size.models
        seconds[task.kind] = seconds.get(task.kind, 0.0) + taken
    for kind, taken in seconds.items():
        count = sum(task.kind == kind for task in to_do)
        yield f"{kind:8} {count:5} cells {spoken(taken):>10}"
    whole = sum(seconds.values())
    beside = f"; with {at_once} at once no less than {spoken(whole / at_once)}" if at_once > 1 else ""
    yield f"time: {spoken(whole)} one after another{beside}"


def units(task: Task, facts: Mapping[str, int]) -> Units:
    """The size of a cell.

    Args:
        facts: how many facts are asked, by the digest of their file.
    """
    count = facts.get(task.options.get("facts", ""), 1)
    if task.kind == "train":
        given, size = task.options["train"], task.labels["size"] or max(facts.values())
        return Units(int(given["max_steps"] or math.ceil(size / given["batch_size"] * given["epochs"])))
    if task.kind == "sweep":
        models = 1 + len(METHODS) * len(task.options["fractions"])
        models += len(task.options["rivals"]) + len(task.options["modules"])
        models += _blocks(task) if task.options["layers"] else 0
        return Units(models * count, models)
    if task.kind == "confirm":
        models = 2 + len(METHODS)
        return Units(models * count, models)
    return Units(count)


def _blocks(task: Task) -> int:
    from knowshift.files import read_json
    from knowshift.models import resolve

    config = read_json(resolve(task.places["model"]) / "config.json")
    layers = next((config[name] for name in ("num_hidden_layers", "n_layer", "num_layers") if name in config), 0)
    return math.ceil(int(layers) / int(task.options["layers"]))


def _size(size: Units) -> int:
    return max(1, size.count)


def _rate(task: Task) -> str:
    """Under which name a cell's rate is known."""
    if task.kind == "train":
        return f"train {task.labels['method']}"
    return "sweep" if task.kind == "confirm" else task.kind


def _disk(plan: Plan, found: Ground, to_do: list[Task], at_once: int, out: Path) -> str:
    trained = [task for task in to_do if task.kind == "train"]
    largest = max(plan.models, key=stored)
    copies = len(trained) if plan.keep_models else min(len(trained), at_once + 1)
    models = copies * stored(largest) + (min(len(trained), at_once) * RESUMING * parameters(largest))
    asked = sum(len(source.facts) for source in found.splits.values())
    tables = ROW_BYTES * asked * sum(task.kind in ("eval", "drift", "sweep", "confirm", "mastery") for task in to_do)
    what = "kept" if plan.keep_models else "at once, removed once measured"
    return (
        f"disk: {models / GB:.1f} GB of models ({copies} {what}, and what training goes on from), about "
        f"{tables / GB:.1f} GB of tables; free are {free_room(out) / GB:.1f} GB"
    )


def _unknown(plan: Plan, cells: list[Any], out: Path) -> bool:
    held = held_in(out)
    return any(cell.kind == "mastery" and cell.labels["split"] == "train" and held(cell) is None for cell in cells)


def _named(task: Task) -> str:
    return f"{task.kind} {_labels(task.labels)}  {task.folder(Path())}"


def _labels(labels: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in labels.items() if value is not None)
