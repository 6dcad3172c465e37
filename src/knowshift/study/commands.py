"""A cell as the command line would do it: for reading, and for doing one by hand."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from knowshift.study.asked import asked_model, facts
from knowshift.study.cell import Task


def command(task: Task, out: Path) -> str:
    """The command that leaves the same files in the cell's folder; of what has no command, what is done."""
    if task.kind not in _COMMANDS:
        return _in_memory(task)
    return shlex.join(["knowshift", *(str(part) for part in _COMMANDS[task.kind](task, out, task.folder(out)))])


def _mastery(task: Task, out: Path, folder: Path) -> list[Any]:
    flags = _flags({name: value for name, value in task.options["mastery"].items() if name != "slick"})
    slick = [] if task.options["mastery"]["slick"] else ["--no-slick"]
    return ["mastery", task.places["model"], "--facts", facts(task, out), "--out", folder, *flags, *slick]


def _select(task: Task, out: Path, folder: Path) -> list[Any]:
    flags = _flags({name: task.options[name] for name in ("level", "mix", "size", "seed")})
    return ["select", task.input(out, "mastery"), "--out", folder / "train.jsonl", *flags]


def _train(task: Task, out: Path, folder: Path) -> list[Any]:
    given = task.options["train"]
    data = task.input(out, "select") / "train.jsonl"
    own = {name: value for name, value in given.items() if name not in ("set", "bf16")}
    sets = [part for name, value in given["set"].items() for part in ("--set", f"{name}={value}") if value is not None]
    return ["train", task.places["model"], "--data", data, "--out", folder / "model", *_flags(own), *sets]


def _eval(task: Task, out: Path, folder: Path) -> list[Any]:
    flags = _flags({name: task.options[name] for name in ("form", "max_new_tokens", "split", "seed")})
    return ["eval", asked_model(task, out), *_on(task, out), "--out", folder, *flags]


def _drift(task: Task, out: Path, folder: Path) -> list[Any]:
    flags = _flags({name: task.options[name] for name in ("mode", "split", "seed")})
    return ["drift", task.places["model"], asked_model(task, out), *_on(task, out), "--out", folder, *flags]


def _diff(task: Task, out: Path, folder: Path) -> list[Any]:
    flags = _flags({name: task.options[name] for name in ("region", "arithmetic", "seed")})
    shares = [part for fraction in task.options["fractions"] for part in ("--fraction", f"{fraction:g}")]
    return ["diff", task.places["model"], asked_model(task, out), "--out", folder, *flags, *shares]


_COMMANDS: Mapping[str, Callable[[Task, Path, Path], list[Any]]] = {
    "mastery": _mastery,
    "select": _select,
    "train": _train,
    "eval": _eval,
    "drift": _drift,
    "diff": _diff,
}


def _on(task: Task, out: Path) -> list[Any]:
    return ["--facts", facts(task, out), "--mastery", task.input(out, "mastery")]


def _flags(values: Mapping[str, Any]) -> list[str]:
    """Options as flags; those that are off or not given need none."""
    found: list[str] = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            found.append(flag)
        elif value is not None and value is not False:
            found += [flag, str(value)]
    return found


def _in_memory(task: Task) -> str:
    options = task.options
    if task.kind == "confirm":
        return "in memory: what the sweep chose, and its controls, asked once on test"
    beside = [name for name, _ in options.get("rivals", [])]
    beside += ["blocks of layers"] * bool(options.get("layers")) + ["modules"] * bool(options.get("modules"))
    shares = ", ".join(f"{fraction:g}" for fraction in options.get("fractions", []))
    return f"in memory: restored at {shares}, beside {', '.join(['controls', *beside])}, asked on validation"
