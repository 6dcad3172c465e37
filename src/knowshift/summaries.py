"""What a command prints when it is done: the figures of its ``metrics.json`` in a few lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOMAINS = {"id": "in-domain", "ood": "out-of-domain"}


def accuracy(metrics: Mapping[str, Any]) -> str:
    """An evaluation: accuracy by domain, containment and strict, with intervals; beside the base; tasks."""
    lines = []
    for domain, figures in metrics.get("contains", {}).items():
        mean, micro = figures["mean_over_levels"], figures["micro"]
        head = f"{DOMAINS[domain]}, {figures['facts']} facts: "
        by_level = f"mean over levels {interval(mean)}, " if mean else ""
        strict = metrics["strict"][domain]["micro"]
        lines.append(f"{head}{by_level}all facts {interval(micro)}, strict {interval(strict)}")
    for form, figures in metrics.get("base", {}).get("forms", {}).items():
        difference = figures["contains"]["difference"]["both"]["micro"]
        lines.append(f"against the base asked in the form {form}: {points(difference)}")
    for domain, figures in metrics.get("base", {}).get("knowledge", {}).items():
        lines.append(
            f"{DOMAINS[domain]}, of {figures['known']} facts the base answers after solved examples: "
            f"{figures['lost_in_format']} lost, {figures['lost_out_of_format']} not answered in the form of an answer"
        )
    for task, entry in metrics.get("tasks", {}).items():
        said = ", ".join(f"{metric} {_with_error(figure)}" for metric, figure in entry.items())
        lines.append(f"{task}: {said}")
    return "\n".join(lines)


def transitions(metrics: Mapping[str, Any], match: str) -> str:
    """What became of the facts, by domain, and the difference in accuracy."""
    lines = []
    for domain, counts in metrics[match]["domains"].items():
        said = ", ".join(f"{counts[change]} {change}" for change in ("kept", "lost", "gained", "never"))
        lines.append(f"{DOMAINS[domain]}: {said} (McNemar p = {counts['mcnemar_p']:.2g})")
    lines.append(f"accuracy: {points(metrics[match]['difference']['both']['micro'])}")
    return "\n".join(lines)


def drift(metrics: Mapping[str, Any]) -> str:
    """Mean KL in nats, by domain where there are any."""
    if not metrics["domains"]:
        return f"{metrics['facts']} windows: KL(tuned || base) {metrics['kl_tuned_base']:.4f} nats"
    return "\n".join(
        f"{DOMAINS[domain]}: KL(tuned || base) {figures['kl_tuned_base']['value']:.4f} nats"
        for domain, figures in metrics["domains"].items()
    )


def diff(metrics: Mapping[str, Any], concentration: Mapping[str, float]) -> str:
    """How much changed, and how concentrated the change is beside its null."""
    lines = [f"changed: {metrics['changed']:,} of {metrics['parameters']:,} weights ({metrics['changed_share']:.1%})"]
    lines.append(
        f"top {concentration['fraction']:.3g} of the weights: {concentration['share']:.1%} of the summed relative "
        f"change (without training: {concentration['null_share']:.1%})"
    )
    return "\n".join([*lines, *(f"note: {warning}" for warning in metrics["warnings"])])


def repair(metrics: Mapping[str, Any], out: Path) -> str:
    """The answer, what the search cost, and where the model is."""
    lines = [metrics["sentence"]]
    if metrics["search"]["candidates"]:
        own = metrics["search"]
        lines.append(
            f"{own['candidates']} candidates, {own['answers']:,} answers in the race, where measuring all in full "
            f"takes {own['answers_without_racing']:,}; {metrics['minutes']:.1f} minutes in all"
        )
    lines += [f"{what}: {out / metrics[what]}" for what in ("model", "adapter") if metrics[what]]
    return "\n".join(lines)


def points(difference: Mapping[str, float]) -> str:
    """A difference of shares with its 95 % interval, in percentage points."""
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"


def _with_error(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return "none"
    return f"{figure['value']:.4g}" + ("" if figure["stderr"] is None else f" (standard error {figure['stderr']:.2g})")


def interval(estimate: Mapping[str, float]) -> str:
    """A share with its 95 % interval, in percent."""
    return f"{estimate['value']:.1%} ({estimate['low']:.1%} to {estimate['high']:.1%})"
