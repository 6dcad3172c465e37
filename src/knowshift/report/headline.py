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
    found = [_knew(run), _tuning(run), form(run), _other(run), _repair(run)]
    return [sentence for sentence in found if sentence]


def _accuracy(run: Run) -> Number | None:
    both = _before_after(run, run.main.name, "ood")
    if both is None:
        return None
    before, after, change = both
    verdict = f"{points_range(change)}" if change.sign else f"change {UNRESOLVED}: {points_range(change)}"
    shown = ", shown solved examples," if run.reference == FEW_SHOT else ""
    return Number(
        f"{percent(before)} → {percent(after)}",
        f"of out-of-domain test facts answered by the base model{shown} and after training on {run.main.title}",
        f"{verdict}, 95% interval",
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
    start = f"Compared with {run.phrase(run.reference)}, after training on {run.main.title},"
    return f"{start} {listing(parts)}." if parts else ""


def form(run: Run) -> str:
    """What the base model answers when asked like the tuned one, whose training also taught it the form."""
    asked = run.metrics.get("accuracy", {}).get("base", {})
    if run.reference == "base" or not asked:
        return ""
    reached = listing(
        [
            f"{percent(float(asked[domain]['value']))} {name.lower()}"
            for domain, name in DOMAINS.items()
            if domain in asked
        ]
    )
    return (
        f"Asked in the trained form without examples, the base model answers {reached}: training also teaches the form "
        "of the answer, and what it adds to these figures is partly that. So knowledge is compared with the base model "
        "shown solved examples."
    )


def _other(run: Run) -> str:
    said = []
    for other in run.tuned[1:]:
        change = tables.paired(run.answers(run.main.name), run.answers(other.name), run.seed)
        if change is None:
            continue
        verdict = (
            f"ended {'above' if change.sign > 0 else 'below'} it"
            if change.sign
            else "did not end measurably above or below it"
        )
        said.append(f"Training on {other.title} instead {verdict}, over both domains: {points_range(change)}.")
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
        verb = "raised" if change.sign > 0 else "lowered"
        text = f"{head} {verb} accuracy on the test facts: {points_range(change)}."
    else:
        text = f"{head} gave no gain that this test can resolve: {points_range(change)}."
    if against is None:
        return text
    if against.sign:
        verdict = f"{'better' if against.sign > 0 else 'worse'} than interpolating: {points_range(against)}"
    else:
        verdict = f"not measurably different from interpolating: {points_range(against)}"
    return f"{text} At the same removed squared update it was {verdict}."


def caution(run: Run) -> str:
    """What to hold against figures by level where a level has few test facts."""
    base = run.answers("base")
    cells = tables.thin_cells(base) if base is not None else None
    if cells is None or not cells.height:
        return ""
    held = [
        f"level {level} holds {count(facts)} {DOMAINS[domain].lower()}" for level, domain, facts in cells.iter_rows()
    ]
    return (
        f"Read the mean over levels with care: {listing(held)} test facts, which weigh in it as much as all facts of "
        "any other level, and an interval drawn from so few is too narrow. No choice here is made by it."
    )


def _before_after(run: Run, name: str, domain: str) -> tuple[float, float, Interval] | None:
    accuracy = run.metrics.get("accuracy", {})
    if domain not in accuracy.get(run.reference, {}) or domain not in accuracy.get(name, {}):
        return None
    change = tables.paired(run.answers(run.reference), run.answers(name), run.seed, domain)
    if change is None:
        return None
    return float(accuracy[run.reference][domain]["value"]), float(accuracy[name][domain]["value"]), change


def _moved(change: Interval) -> str:
    if change.sign:
        return f"{'rose' if change.sign > 0 else 'fell'}: {points_range(change)}"
    return f"did not move measurably: {points_range(change)}"
