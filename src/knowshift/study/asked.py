"""Cells that are steps of the command line: their options as the step takes them."""

import shutil
from pathlib import Path

from knowshift import steps
from knowshift.files import atomic_file
from knowshift.study.cell import SHORT, Task
from knowshift.study.work import MODEL


def mastery(task: Task, out: Path, folder: Path) -> None:
    """``knowshift mastery``. Draws are shared with every earlier mastery cell of this model and split."""
    from knowshift.mastery.score import MasteryOptions

    options = MasteryOptions(**task.options["mastery"])
    model = task.options["model"].rpartition(":")[2][:SHORT]
    store = out / "draws" / model / task.labels["split"]
    steps.mastery(task.places["model"], facts(task, out), folder, options, store=store)


def select(task: Task, out: Path, folder: Path) -> None:
    """``knowshift select``."""
    from knowshift.mastery.mix import read_mix

    options = task.options
    mix = None if options["mix"] is None else read_mix(options["mix"])
    steps.select_set(
        task.input(out, "mastery"),
        folder / "train.jsonl",
        level=options["level"],
        mix=mix,
        size=options["size"],
        seed=options["seed"],
    )


def train(task: Task, out: Path, folder: Path) -> None:
    """``knowshift train``; what is to stay when the model goes is copied out of its folder."""
    from knowshift.train.options import TrainOptions

    model = folder / MODEL
    # A model that is there is whole, for it is renamed into place, and its cell was killed before its mark.
    if not (model / "run.json").is_file():
        steps.train(
            TrainOptions(
                model=task.places["model"],
                data=task.input(out, "select") / "train.jsonl",
                out=model,
                **task.options["train"],
            )
        )
    for name in ("train_log.parquet", "run.json"):
        with atomic_file(folder / name) as partial:
            shutil.copyfile(model / name, partial)


def evaluate(task: Task, out: Path, folder: Path) -> None:
    """``knowshift eval``."""
    options = task.options
    steps.evaluate(
        asked_model(task, out),
        facts(task, out),
        folder,
        mastery_run=task.input(out, "mastery"),
        form=options["form"],
        max_new_tokens=options["max_new_tokens"],
        split=options["split"],
        seed=options["seed"],
    )


def drift(task: Task, out: Path, folder: Path) -> None:
    """``knowshift drift``."""
    options = task.options
    steps.drift(
        task.places["model"],
        asked_model(task, out),
        facts(task, out),
        folder,
        mode=options["mode"],
        mastery_run=task.input(out, "mastery"),
        split=options["split"],
        seed=options["seed"],
    )


def diff(task: Task, out: Path, folder: Path) -> None:
    """``knowshift diff``."""
    options = task.options
    steps.diff(
        task.places["model"],
        asked_model(task, out),
        folder,
        region=options["region"],
        arithmetic=options["arithmetic"],
        fractions=options["fractions"],
        seed=options["seed"],
    )


def facts(task: Task, out: Path) -> str:
    """The file of the facts it asks."""
    return str(out / task.places["facts"])


def asked_model(task: Task, out: Path) -> str:
    """The model it is about: the one trained, where there is one."""
    return str(task.input(out, "train") / MODEL) if "train" in task.inputs else task.places["model"]
