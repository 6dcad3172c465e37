"""The settings of a run, beside the paper's where it states one."""

from typing import Any

from knowshift.report import commands
from knowshift.report.blocks import Section, Table
from knowshift.report.data import Run
from knowshift.report.words import listing

PAPER = {
    "templates": 21,
    "samples": 10,
    "temperature": 0.7,
    "max_new_tokens": 32,
    "mastery_new_tokens": 32,
    "answer_new_tokens": 16,
    "learning_rate": 1e-5,
    "batch_size": 8,
    "epochs": 1,
    "fractions": (0.01, 0.03, 0.05, 0.1, 0.2, 0.4, 0.6),
}
REDUCED = ("templates", "samples", "max_new_tokens", "mastery_new_tokens", "answer_new_tokens")


def settings(run: Run) -> Section:
    """Every option, the versions and the models' digests."""
    section = Section("settings", "Settings", commands=commands.whole(run), sources=["run.json", "metrics.json"])
    flat = _flat(run.settings)
    reduced = [
        f"{name.replace('_', ' ')} {flat[name]} instead of {PAPER[name]}"
        for name in REDUCED
        if name in flat and flat[name] != PAPER[name]
    ]
    section.lead.append(
        f"Reduced settings: {listing(reduced)} (the paper scores mastery with 21 templates, 10 samples, temperature "
        "0.7 and 32 new tokens, and answers with 16). Mastery and levels are coarser for it."
        if reduced
        else "Mastery was scored with the paper's settings: 21 templates, 10 samples, temperature 0.7, 32 new tokens."
    )
    rows = [
        (name, _shown(value), _shown(PAPER[name]) if name in PAPER else "")
        for name, value in {**flat, "seed": run.seed}.items()
    ]
    section.blocks.append(Table("Options as resolved", ("Option", "This run", "Paper"), rows))
    record = run.record
    facts: dict[str, Any] = {
        **{f"{name} version": value for name, value in record.get("versions", {}).items()},
        **{f"{name} digest": value for name, value in record.get("models", {}).items()},
        **{name: record[name] for name in ("started", "ended") if name in record},
    }
    if facts:
        pairs = [(name, _shown(value)) for name, value in facts.items()]
        section.blocks.append(Table("Versions, models and times", ("What", "Value"), pairs))
    return section


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return "" if value is None else str(value)
