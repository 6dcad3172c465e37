"""What a command prints when it is done: the figures of its ``metrics.json`` in a few lines."""

from collections.abc import Mapping
from typing import Any

DOMAINS = {"id": "in-domain", "ood": "out-of-domain"}


def accuracy(metrics: Mapping[str, Any]) -> str:
    """Accuracy of an evaluation by domain, containment and strict, with intervals."""
    lines = []
    for domain, figures in metrics["contains"].items():
        mean, micro = figures["mean_over_levels"], figures["micro"]
        head = f"{DOMAINS[domain]}, {figures['facts']} facts: "
        by_level = f"mean over levels {interval(mean)}, " if mean else ""
        strict = metrics["strict"][domain]["micro"]
        lines.append(f"{head}{by_level}all facts {interval(micro)}, strict {interval(strict)}")
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


def interval(estimate: Mapping[str, float]) -> str:
    """A share with its 95 % interval, in percent."""
    return f"{estimate['value']:.1%} ({estimate['low']:.1%} to {estimate['high']:.1%})"
