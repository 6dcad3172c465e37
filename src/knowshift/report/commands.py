"""The commands that make each part of a run again, from the run's own options, to be given in the run folder."""

import shlex
from typing import Any

from knowshift.report.data import FEW_SHOT, Run

# Every setting of the run that the command takes.
DEMO = (
    "model",
    "facts",
    "method",
    "templates",
    "samples",
    "temperature",
    "mastery_new_tokens",
    "answer_new_tokens",
    "train_facts",
    "validation_facts",
    "test_facts",
    "low_size",
    "middle_size",
    "learning_rate",
    "batch_size",
)
# What the report holds is of the test split; mastery is of every fact of the run.
ASKED = {"facts": "facts.jsonl", "mastery": "mastery", "split": "test"}


def mastery(run: Run) -> list[str]:
    """How the base model was scored."""
    options = _given(run, "templates", "samples", "temperature", max_new_tokens="mastery_new_tokens")
    return [_line("mastery", run.base, facts="facts.jsonl", out="mastery", **options, seed=run.seed)]


def training(run: Run) -> list[str]:
    """How the sets were chosen and the models trained."""
    lines = []
    for model in run.tuned:
        if model.data and model.level is not None and model.size is not None:
            wanted = {"level": model.level, "size": model.size, "out": model.data, "seed": run.seed}
            lines.append(_line("select", "mastery", **wanted))
        if model.data:
            options = {"method": model.method or None, **_given(run, "learning_rate", "batch_size", "epochs")}
            out = f"models/{model.name}"
            lines.append(_line("train", run.base, data=model.data, out=out, **options, seed=run.seed))
    return lines


def evaluation(run: Run) -> list[str]:
    """How every model that was only trained was asked."""
    asked = [_eval(run, run.base, "base")]
    if run.answers(FEW_SHOT) is not None:
        asked.append(_eval(run, run.base, FEW_SHOT, form="few-shot"))
    return asked + [_eval(run, f"models/{model.name}", model.name) for model in run.tuned]


def drift(run: Run) -> list[str]:
    """How the divergence was measured."""
    return [
        _line("drift", run.base, f"models/{model.name}", **ASKED, out=f"drift/{model.name}", seed=run.seed)
        for model in run.tuned
    ]


def diff(run: Run) -> list[str]:
    """How the weights were compared."""
    options = _given(run, "region", "arithmetic")
    return [
        _line("diff", run.base, f"models/{model.name}", **options, out=f"diff/{model.name}", seed=run.seed)
        for model in run.tuned
    ]


def restoration(run: Run) -> list[str]:
    """How the chosen restoration and its matched control are made and asked again."""
    if run.fraction is None or not run.tuned:
        return []
    tuned, chosen = f"models/{run.main.name}", f"{run.fraction:g}"
    options = _given(run, "region", "arithmetic")
    lines = [_line("restore", run.base, tuned, fraction=chosen, out="restored", **options)]
    lines.append(_eval(run, f"restored/{chosen}", "restored"))
    alpha = run.choice.get("alpha")
    if alpha is not None:
        matched = {"alpha": repr(float(alpha)), "out": "interpolated", **_given(run, "region")}
        lines += [_line("merge", "interpolate", run.base, tuned, **matched), _eval(run, "interpolated", "interpolated")]
    return lines


def whole(run: Run) -> list[str]:
    """How the whole run is made again, and this page from its files."""
    if run.record.get("command") != "demo":
        return [_line("report", ".")]
    return [_line("demo", **_given(run, *DEMO), seed=run.seed, out="again"), _line("report", ".")]


def repair(run: Run) -> str:
    """How a repair is made again; to be given where the run was."""
    names = ("knowledge", "task", "task_metric", "max_task_drop", "budget")
    pair = (str(run.settings.get(role, "")) for role in ("base", "tuned"))
    return _line("repair", *pair, **_given(run, *names), out=run.folder.resolve().name, seed=run.seed)


def _eval(run: Run, model: str, name: str, **options: Any) -> str:
    options |= _given(run, max_new_tokens="answer_new_tokens")
    return _line("eval", model, **ASKED, **options, out=f"eval/{name}", seed=run.seed)


def _given(run: Run, *names: str, **renamed: str) -> dict[str, Any]:
    """Options of the run by the names that a command gives them; unknown ones are left to the command."""
    wanted = {**dict(zip(names, names, strict=True)), **renamed}
    return {name: run.settings[own] for name, own in wanted.items() if run.settings.get(own) is not None}


def _line(command: str, *arguments: str, **options: Any) -> str:
    parts = ["knowshift", command, *(shlex.quote(argument) for argument in arguments)]
    for name, value in options.items():
        if value is not None:
            parts += [f"--{name.replace('_', '-')}", shlex.quote(str(value))]
    return " ".join(parts)
