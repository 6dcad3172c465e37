"""The top of a repair's page: the sentence that the test supports, and four figures. Nothing is said that was not
resolved.
"""

from typing import Any

from knowshift.report.data import Run
from knowshift.report.headline import Number
from knowshift.report.words import Interval, count, nats, percent, percent_range, points_range

HEADINGS = {
    "repaired": "Given back: what {tuned} forgot",
    "nothing-lost": "Nothing to repair in {tuned}",
    "nothing-returned": "No repair found for {tuned}",
    "task-drop": "No repair within the bound for {tuned}",
}


def heading(run: Run) -> str:
    """The page's title, by what came out."""
    names = run.metrics.get("models", {})
    return HEADINGS.get(outcome(run), "Repair of {tuned}").format(tuned=short(str(names.get("tuned", "the model"))))


def outcome(run: Run) -> str:
    """``repaired``, ``nothing-lost``, ``nothing-returned`` or ``task-drop``."""
    return str(run.metrics.get("outcome", ""))


def short(name: str) -> str:
    """Of a folder its own name, of a hub id all of it."""
    return name.rstrip("/").rsplit("/", 1)[-1] if name.startswith((".", "/", "~")) or name.count("/") > 1 else name


def shares(run: Run) -> bool:
    """Whether the task's scores are shares of right answers."""
    return run.metrics.get("task_metric") != "log-likelihood"


def task_change(run: Run, change: dict[str, Any]) -> str:
    """A change of the task's mean score, with its interval."""
    interval = Interval.of(change)
    if shares(run):
        return points_range(interval)
    return f"{interval.value:+.3f} nats a token ({interval.low:+.3f} to {interval.high:+.3f})"


def numbers(run: Run) -> list[Number]:
    """Facts returned, knowledge, task, drift: those that the run holds."""
    return [number for number in (_returned(run), _knowledge(run), _task(run), _drift(run)) if number]


def _returned(run: Run) -> Number | None:
    told = run.metrics
    if "lost" not in told:
        return None
    if told["outcome"] == "nothing-lost":
        return Number(
            f"{count(told['lost'])} lost, {count(told['since_base']['gained'])} gained",
            f"of {count(told['facts'], 'fact')} that the base model knows",
            "no more lost than chance explains",
        )
    share = told.get("returned_share")
    note = f"{percent_range(Interval.of(share))}, 95% interval" if share else ""
    return Number(f"{count(told['returned'])} of {count(told['lost'])}", "lost facts that the repair answers", note)


def _knowledge(run: Run) -> Number | None:
    scores = run.metrics.get("scores", {})
    if not {"tuned", "repaired"} <= scores.keys():
        return None
    before, after = (percent(scores[role]["knowledge"]) for role in ("tuned", "repaired"))
    what = f"of {count(run.metrics['facts'], 'test fact')} that the base knows, answered before and after the repair"
    note = f"{points_range(Interval.of(run.metrics['repair']))}, 95% interval"
    return Number(f"{before} → {after}", what, note)


def _task(run: Run) -> Number | None:
    scores = run.metrics.get("scores", {})
    if not {"tuned", "repaired"} <= scores.keys():
        return None
    before, after = (scores[role]["task"] for role in ("tuned", "repaired"))
    figures = f"{percent(before)} → {percent(after)}" if shares(run) else f"{before:.3f} → {after:.3f}"
    what = f"on {count(run.metrics['items'], 'test prompt')} of the task ({run.metrics.get('task_metric', 'score')})"
    return Number(figures, what, f"{task_change(run, run.metrics['task'])}, 95% interval")


def _drift(run: Run) -> Number | None:
    measured = run.metrics.get("drift")
    if not measured:
        return None
    before, after = (nats(float(measured[role]["kl_tuned_base"])) for role in ("tuned", "repaired"))
    return Number(f"{before} → {after}", "mean KL to the base per answer token (0 = not at all)", "")
