"""The top of the page: what happened to this model, in four numbers and a few plain sentences.

Nothing is said to have risen, fallen or come back unless its 95 % interval lies on one side of zero.
"""

from dataclasses import dataclass

import polars as pl

from knowshift.measure.statistics import mcnemar_exact
from knowshift.report import tables
from knowshift.report.data import FEW_SHOT, Run
from knowshift.report.theme import DOMAINS
from knowshift.report.words import Interval, count, fraction, listing, nats, percent, points, points_range

UNRESOLVED = "not resolved at this sample size"


@dataclass(frozen=True, slots=True)
class Number:
    """One of the four numbers: the figure, what it is, and how sure."""

    figure: str
    label: str
    note: str


def numbers(run: Run) -> list[Number]:
    """Accuracy, facts, divergence, restoration: those the run holds."""
    found = [_accuracy(run), _facts(run), _drift(run), _restoration(run)]
    return [number for number in found if number]


def sentences(run: Run) -> list[str]:
    """The same in plain words, with what the four numbers leave out."""
    found = [_knew(run), _tuning(run), against_examples(run), _other(run), _repair(run)]
    return [sentence for sentence in found if sentence]


def _accuracy(run: Run) -> Number | None:
    both = _before_after(run, run.main.name, "ood")
    if both is None:
        return None
    before, after, change = both
    verdict = f"{points_range(change)}" if change.sign else f"change {UNRESOLVED}: {points_range(change)}"
    shown = run.metrics["accuracy"].get(FEW_SHOT, {}).get("ood")
    examples = f"; before, with solved examples: {percent(float(shown['value']))}" if shown else ""
    return Number(
        f"{percent(before)} → {percent(after)}",
        f"out-of-domain accuracy before and after training on {run.main.title}",
        f"{verdict}, 95% interval{examples}",
    )


def _facts(run: Run) -> Number | None:
    table = run.transitions(run.main.name)
    if table is None:
        return None
    lost, gained = (table.filter(change=change).height for change in ("lost", "gained"))
    p = mcnemar_exact(lost, gained)
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    if p >= 0.05:
        verdict = f"no net change resolved (exact McNemar {chance})"
    else:
        verdict = f"more {'lost than gained' if lost > gained else 'gained than lost'} (exact McNemar {chance})"
    return Number(f"{count(lost)} lost, {count(gained)} gained", f"of {count(table.height, 'test fact')}", verdict)


def _drift(run: Run) -> Number | None:
    means = {model.name: run.mean_drift(model.name) for model in run.tuned}
    main = means.pop(run.main.name)
    if main is None:
        return None
    titles = {model.name: model.title for model in run.tuned}
    others = [f"{nats(mean)} after {titles[name]}" for name, mean in means.items() if mean is not None]
    label = "mean KL(tuned‖base) per answer token: how far the predictions moved (0 = not at all)"
    return Number(nats(main), label, "; ".join(others))


def _restoration(run: Run) -> Number | None:
    change = run.restored
    if change is None or run.fraction is None:
        return None
    what = f"test accuracy after putting back {fraction(run.fraction)} of the weights"
    if not change.sign:
        return Number("No gain resolved", what, f"{points_range(change)}, 95% interval, at this sample size")
    return Number(points(change.value), what, f"95% interval {points_range(change).split(' (')[1][:-1]}")


def _knew(run: Run) -> str:
    mastery = run.mastery
    if mastery is None:
        return ""
    well, never = mastery.filter(pl.col("level") >= 3).height, mastery.filter(level=0).height
    return (
        f"Of {count(mastery.height, 'fact')} put to {run.title}, it answered {count(well)} in more than half of "
        f"its samples (levels 3 and 4) and never found the answer to {count(never)} (level 0)."
    )


def _tuning(run: Run) -> str:
    parts = []
    for domain, name in DOMAINS.items():
        both = _before_after(run, run.main.name, domain)
        if both is not None:
            aside = ", on topics that training never touched," if domain == "ood" and run.untouched else ""
            parts.append(f"{name.lower()} test accuracy{aside} {_moved(both[2])}")
    return f"After training on {run.main.title}, {listing(parts)}." if parts else ""


def against_examples(run: Run) -> str:
    """The tuned model against the base model that was shown the form of the answers instead of being trained."""
    shown = run.answers(FEW_SHOT)
    change = tables.paired(shown, run.answers(run.main.name), run.seed)
    if shown is None or change is None:
        return ""
    verdict = (
        f"the tuned model is {'above' if change.sign > 0 else 'below'} it: {points_range(change)}"
        if change.sign
        else f"the tuned model is not measurably above or below it: {points_range(change)}"
    )
    reached = " and ".join(
        f"{percent(float(entry['value']))} {DOMAINS[domain].lower()}"
        for domain, entry in run.metrics.get("accuracy", {}).get(FEW_SHOT, {}).items()
        if domain in DOMAINS
    )
    return (
        f"Training also teaches the form of the answer, which the base model never saw. Shown a few solved examples "
        f"instead, the base model reaches {reached}; over both domains, {verdict}."
    )


def _other(run: Run) -> str:
    said = []
    for other in run.tuned[1:]:
        change = tables.paired(run.answers(run.main.name), run.answers(other.name), run.seed)
        if change is None:
            continue
        verdict = (
            f"ended {points_range(change)} {'above' if change.sign > 0 else 'below'} it"
            if change.sign
            else f"did not end measurably above or below it ({points_range(change)})"
        )
        said.append(f"Training on {other.title} instead {verdict}, both domains taken together.")
    return " ".join(said)


def _repair(run: Run) -> str:
    change, against = run.restored, run.against_interpolation
    if change is None or run.fraction is None:
        return ""
    share = fraction(run.fraction)
    if run.fraction == 0:
        return "On the validation facts no fraction did better than putting nothing back, so nothing was restored."
    head = f"Putting back the {share} of weights with the largest relative change, a share chosen on validation facts,"
    if change.sign:
        verb = "returned" if change.sign > 0 else "cost"
        text = f"{head} {verb} {points_range(change)} on the test facts."
    else:
        text = f"{head} gave no gain that this test can resolve: {points_range(change)}."
    if against is None:
        return text
    if against.sign:
        verdict = f"{'more' if against.sign > 0 else 'less'} than interpolating: {points_range(against)}"
    else:
        verdict = f"not measurably different from interpolating: {points_range(against)}"
    return f"{text} At the same removed squared update it was {verdict}."


def _before_after(run: Run, name: str, domain: str) -> tuple[float, float, Interval] | None:
    accuracy = run.metrics.get("accuracy", {})
    if domain not in accuracy.get("base", {}) or domain not in accuracy.get(name, {}):
        return None
    change = tables.paired(run.answers("base"), run.answers(name), run.seed, domain)
    if change is None:
        return None
    return float(accuracy["base"][domain]["value"]), float(accuracy[name][domain]["value"]), change


def _moved(change: Interval) -> str:
    if change.sign:
        return f"{'rose' if change.sign > 0 else 'fell'}: {points_range(change)}"
    return f"did not move measurably: {points_range(change)}"
