"""The command that makes each part of a run again, from the run's own options."""

import shlex
from collections.abc import Mapping
from typing import Any

from knowshift.report.data import Run

MASTERY = ("templates", "samples", "temperature", "max_new_tokens", "engine")
TRAIN = ("learning_rate", "batch_size", "epochs")


def mastery(run: Run) -> list[str]:
    """How the base model was scored."""
    return [_line("mastery", run.base, facts="facts.jsonl", out="mastery", **_given(run, MASTERY), seed=run.seed)]


def evaluation(run: Run) -> list[str]:
    """How the sets were chosen, the models trained and everyone asked."""
    lines = []
    for model in run.tuned:
        if model.level is not None and model.size is not None and model.data:
            wanted = {"level": model.level, "size": model.size, "out": model.data, "seed": run.seed}
            lines.append(_line("select", "mastery", **wanted))
        if model.data:
            options = {"out": f"models/{model.name}", "method": model.method or None}
            lines.append(_line("train", run.base, data=model.data, **options, **_given(run, TRAIN), seed=run.seed))
    lines.append(_eval(run.base, "base", run.seed))
    return lines + [_eval(f"models/{model.name}", model.name, run.seed) for model in run.tuned]


def drift(run: Run) -> list[str]:
    """How the divergence was measured."""
    return [_pair("drift", run, model.name, facts="facts.jsonl", mastery="mastery") for model in run.tuned]


def diff(run: Run) -> list[str]:
    """How the weights were compared."""
    return [_pair("diff", run, model.name, **_given(run, ("region", "arithmetic"))) for model in run.tuned]


def restore(run: Run) -> list[str]:
    """How the chosen restoration and its control are made and asked again."""
    if run.fraction is None:
        return []
    tuned = f"models/{run.main.name}"
    chosen = f"{run.fraction:g}"
    options = _given(run, ("region", "arithmetic"))
    lines = [_line("restore", run.base, tuned, fraction=chosen, out="restored", **options)]
    lines.append(_eval(f"restored/{chosen}", "restored", run.seed))
    alpha = run.choice.get("alpha")
    if alpha is not None:
        lines.append(_line("merge", "interpolate", run.base, tuned, alpha=f"{alpha:g}", out="interpolated"))
        lines.append(_eval("interpolated", "interpolated", run.seed))
    return lines


def report() -> list[str]:
    """How this page is written again."""
    return [_line("report", ".")]


def _eval(model: str, name: str, seed: int) -> str:
    return _line("eval", model, facts="facts.jsonl", mastery="mastery", out=f"eval/{name}", seed=seed)


def _pair(command: str, run: Run, name: str, **options: Any) -> str:
    return _line(command, run.base, f"models/{name}", **options, out=f"{command}/{name}", seed=run.seed)


def _given(run: Run, names: tuple[str, ...]) -> Mapping[str, Any]:
    return {name: run.settings[name] for name in names if run.settings.get(name) is not None}


def _line(command: str, *arguments: str, **options: Any) -> str:
    parts = ["knowshift", command, *(shlex.quote(argument) for argument in arguments)]
    for name, value in options.items():
        if value is not None:
            parts += [f"--{name.replace('_', '-')}", shlex.quote(str(value))]
    return " ".join(parts)
