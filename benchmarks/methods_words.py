"""The sentences of the page: what was asked and how, what one sees, what it cost. Every figure comes from tables."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from methods_figures import one
from scipy.stats import spearmanr

from knowshift.report.words import count, listing, percent, percent_range, points_range

if TYPE_CHECKING:
    from methods_page import Results


def setup(found: Results) -> str:
    """Question, facts, rule."""
    plan, test, points = found.plan, found.test.row(0, named=True), found.points.row(0, named=True)
    levels = listing([f"{size} of level {level}" for level, size in plan.levels.items()])
    seeds = listing([str(seed) for seed in plan.test_seeds])
    text = f"""**Question.** Which way of fine-tuning keeps most of what the base model knew, when all answer in-domain
questions equally well?

**Model and facts.** `{plan.model}`, facts `{plan.facts}`. A training set is {levels} (in-domain; mastery from
{plan.mastery.templates} phrasings x {plan.mastery.samples} samples), drawn anew for each seed and the same for all
methods. Validation: {count(points["id_facts"])} in-domain and {count(points["ood_facts"])} out-of-domain facts, test:
{count(test["id_facts"])} and {count(test["ood_facts"])}; none was trained on,
and no out-of-domain fact is. Tuned models are asked greedily in the
form they were trained on. A fact is *known* if the base answers it after five solved examples, the same for all
facts: {count(points["id_known"])} and {count(points["ood_known"])} in validation, {count(test["id_known"])} and
{count(test["ood_known"])} in test. A known fact is *kept* if the tuned model still answers it, else *lost*.

**Rule of choice, fixed before anything was run.** Each method has a sweep of learning rates (and strengths, where it
has any) with seed {plan.sweep_seed}, judged on validation alone. The mark is the best in-domain accuracy of
`{plan.target}` over its sweep less one standard error: here {percent(found.mark["best"])} less
{percent(found.mark["standard_error"])}, {percent(found.mark["mark"])}. Of a method's points that reach it, the one
with most known out-of-domain facts kept is chosen; where none does, the one with the highest in-domain accuracy,
marked "not matched". The grids of settings were drawn up after trial runs, of which validation facts were asked and
test facts were not. Then each chosen setting was trained with seeds {seeds} and asked the test facts once.

**Intervals** are 95 %, from a bootstrap over facts and seeds at once; differences are paired by fact and seed. They
are not adjusted for the number of methods, and {count(len(plan.test_seeds), "seed")} say little about the spread
between trainings, which stands beside them. *Supported* means: the mark was reached, the interval of the difference
in known out-of-domain facts kept lies above zero, and in-domain accuracy on test is not resolved to be lower. An
answer counts if it contains the gold answer, which favours long texts; the strict columns and the share in the trained
format stand beside it."""
    return "\n\n".join(map(_filled, text.split("\n\n")))


def seen(found: Results) -> str:
    """What the figures say, one line each."""
    lines = [_target(found)]
    lines += [_ours(found, other) for other in found.against if found.plan.ours not in (None, other)]
    lines += [_better(found, other) for other in found.against]
    lines += _most(found) + _unmatched(found) + _why(found)
    return "\n".join(f"- {line}" for line in lines if line)


def cost(found: Results) -> str:
    """How long it took, and the command."""
    about, sweep, test = found.about, found.points["seconds"], found.test["seconds"]
    minutes = [seconds / 60 for seconds in (about["prepare_seconds"], sum(sweep), sum(test))]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    spent = (
        f"{minutes[0]:.0f} minutes to score and ask the base, {minutes[1]:.0f} for {count(len(sweep), 'training')} of "
        f"the sweep, {minutes[2]:.0f} for {count(len(test), 'training')} of the test, on {about['processor']} with "
        f"{count(about['threads'], 'thread')}; {about['ended'][:10]}. The machine did other work at the same time, so "
        "the seconds above do not say what a method costs."
    )
    return f"""## How long it took

{_filled(spent)}

```
python benchmarks/methods.py docs/results/methods/plan.yaml --out runs/methods --docs docs/results
```

Base model `{about["base"]}`; {versions}."""


def _target(found: Results) -> str:
    name = found.plan.target
    kept = [percent_range(one(found.means, name=name, measure=f"{domain}_kept")) for domain in ("id", "ood")]
    accuracy = percent_range(one(found.means, name=name, measure="id_accuracy"))
    return (
        f"`{name}` answers {accuracy} of the in-domain test facts. Of what the base knew it keeps {kept[0]} "
        f"in-domain and {kept[1]} out-of-domain."
    )


def _ours(found: Results, other: str) -> str:
    name = str(found.plan.ours)
    if name not in found.methods:
        return ""
    kept, accuracy = (
        one(found.differences, name=name, against=other, measure=measure) for measure in ("ood_kept", "id_accuracy")
    )
    strict = one(found.differences, name=name, against=other, measure="ood_kept_strict")
    matched = "" if found.matched(name) else " It did not reach the mark on validation."
    return (
        f"Our method, `{name}`, keeps more known out-of-domain facts than `{other}` at matched in-domain accuracy: "
        f"**{found.verdict(name, other)}**. Difference {points_range(kept)}; in-domain accuracy "
        f"{points_range(accuracy)}. Of strict answers alone, the difference in facts kept is {points_range(strict)}."
        f"{matched}"
    )


def _better(found: Results, other: str) -> str:
    by: dict[str, list[str]] = {"supported": [], "not supported": [], "not resolved": []}
    for name in found.methods:
        if name != other:
            by[found.verdict(name, other)].append(f"`{name}`")
    said = [f"{listing(some)} {word}" for word, some in by.items() if some]
    return f"Keeps more out-of-domain than `{other}` at matched accuracy: {'; '.join(said)}." if said else ""


def _most(found: Results) -> list[str]:
    matched = [name for name in found.methods if found.matched(name)]
    if len(matched) < 2:
        return []
    lines = []
    for domain, title in (("ood", "out-of-domain"), ("id", "in-domain")):
        figures = {name: one(found.means, name=name, measure=f"{domain}_kept") for name in matched}
        order = sorted(figures, key=lambda name: -figures[name].value)
        most, least = order[0], order[-1]
        lines.append(
            f"Of the methods that reached the mark, `{most}` keeps most of the {title} facts, "
            f"{percent_range(figures[most])}, and `{least}` least, {percent_range(figures[least])}."
        )
    return lines


def _unmatched(found: Results) -> list[str]:
    names = [f"`{name}`" for name in found.methods if not found.matched(name)]
    return [f"Did not reach the mark on validation at any setting tried: {listing(names)}."] if names else []


def _why(found: Results) -> list[str]:
    """Why ours, which bounds how far a model moves, keeps no more: whether moving less keeps more here."""
    ours, target = str(found.plan.ours), found.plan.target
    if ours not in found.methods or found.verdict(ours, target) == "supported":
        return []
    kl, kept = (
        [one(found.means, name=name, measure=measure).value for name in found.methods] for measure in ("kl", "ood_kept")
    )
    if len(set(kl)) < 2 or len(set(kept)) < 2:
        return []  # no order, no correlation
    before, after = (kl[found.methods.index(name)] for name in (target, ours))
    order = float(spearmanr(kl, kept).statistic)
    return [
        f"Why `{ours}` does not: it bounds how far the model moves, and it did (KL {after:.2f} nats, `{target}` "
        f"{before:.2f}), but moving less did not go with keeping more: over the {count(len(kl), 'method')} the rank "
        f"correlation between KL and out-of-domain facts kept is {order:+.2f}; moving less would keep more if it were "
        "near -1."
    ]


def _filled(paragraph: str) -> str:
    return textwrap.fill(paragraph, 118, break_long_words=False, break_on_hyphens=False)
