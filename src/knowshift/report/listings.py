"""The tables and lists of the page: text made ready from small tables, nothing drawn."""

from collections.abc import Callable
from typing import Any

import polars as pl

from knowshift.mastery.levels import LEVELS, NAMES
from knowshift.report import tables
from knowshift.report.blocks import Change, Changes, Examples, Table
from knowshift.report.data import Run
from knowshift.report.theme import CHANGES, DOMAINS
from knowshift.report.words import Interval, count, percent, percent_range

# Rows by name for each model and change; the transitions files hold all of them.
SHOWN = 400
LONGEST = 160


def levels(mastery: pl.DataFrame) -> Table:
    """Facts by domain, split and level."""
    rows = []
    for domain, name in DOMAINS.items():
        for split in ("train", "validation", "test", ""):
            part = mastery.filter(pl.col("domain") == domain, pl.col("split") == split)
            if part.height:
                cells = [count(part.filter(level=level).height) for level in LEVELS]
                rows.append((name, split or "all", *cells, count(part.height)))
    columns = ("Domain", "Split", *(f"Level {level}" for level in LEVELS), "All")
    return Table("Facts by domain, split and level", columns, rows, frozenset(range(2, 8)))


def examples(chosen: pl.DataFrame) -> Examples:
    """The chosen facts by level: question, answer, hits of trials."""
    found = []
    for level in LEVELS:
        rows = chosen.filter(level=level)
        facts = [
            (brief(row["question"]), brief(row["answers"][0]), f"{row['hits']} of {row['trials']}")
            for row in rows.iter_rows(named=True)
        ]
        found.append((level, NAMES[level], facts))
    return Examples(found)


def accuracy(run: Run, answers: dict[str, pl.DataFrame]) -> Table:
    """Accuracy of every model with its interval, beside its training set, the mean over levels and the form."""
    models = {model.name: model for model in run.tuned}
    stated, levels = run.metrics.get("accuracy", {}), run.metrics.get("accuracy_over_levels", {})
    rows = []
    for name, table in answers.items():
        model = models.get(name)
        size = count(model.size) if model and model.size is not None else ""
        cells = [
            percent_range(Interval.of(entry)) if (entry := stated.get(name, {}).get(domain)) else ""
            for domain in DOMAINS
        ]
        means = [
            percent(float(entry["value"])) if (entry := levels.get(name, {}).get(domain)) else "" for domain in DOMAINS
        ]
        shares = [percent(tables.mean(table, column)) for column in ("strict", "in_format")]
        rows.append((run.label(name), size, *cells, *means, *shares))
    columns = (
        "Model",
        "Training facts",
        *DOMAINS.values(),
        *(f"{domain}, over levels" for domain in DOMAINS.values()),
        "Strict match",
        "In format",
    )
    caption = (
        "Share of test facts answered (95% interval), the same over levels, strict match, answers in the trained form"
    )
    return Table(caption, columns, rows, frozenset(range(1, 8)))


def figures(run: Run, table: pl.DataFrame, show: Callable[[float], str], what: str) -> Table:
    """The numbers behind a chart by level."""
    rows = [
        (
            run.label(row["model"]),
            DOMAINS[row["domain"]],
            str(row["level"]),
            count(row["facts"]),
            show(row["value"]),
            f"{show(row['low'])} to {show(row['high'])}",
        )
        for row in table.iter_rows(named=True)
    ]
    columns = ("Model", "Domain", "Level", "Facts", what, "95% interval")
    return Table(f"{what} by model, domain and level", columns, rows, frozenset(range(2, 6)))


def changes(run: Run, counts: pl.DataFrame) -> Table:
    """Facts kept, lost, gained and never known."""
    rows = []
    for (model, domain), part in counts.group_by("model", "domain", maintain_order=True):
        by_change = dict(part.select("change", "facts").iter_rows())
        cells = [count(by_change[change]) for change in CHANGES]
        rows.append((run.label(str(model)), DOMAINS[str(domain)], *cells))
    columns = ("Model", "Domain", "Kept", "Lost", "Gained", "Never known")
    return Table("Test facts by change from the base model", columns, rows, frozenset(range(2, 6)))


def named(run: Run, transitions: dict[str, pl.DataFrame]) -> Changes:
    """The facts lost and gained by name."""
    shown, cut = tables.changed_facts(transitions, SHOWN)
    rows = [
        Change(
            model=run.label(row["model"]),
            change=row["change"],
            topic=row["topic"].replace("_", " "),
            level="" if row["level"] is None else str(row["level"]),
            question=brief(row["question"]),
            expected=brief(" / ".join(row["answers"][:3])),
            before=brief(row["before"]),
            after=brief(row["after"]),
        )
        for row in shown.iter_rows(named=True)
    ]
    note = f"At most {SHOWN} facts a model and change stand here; the transitions files hold all." if cut else ""
    return Changes([run.label(name) for name in transitions], rows, note)


def brief(text: str) -> str:
    """One line, at most ``LONGEST`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def moved_most(rows: list[dict[str, Any]], model: str, shown: int = 10) -> Table:
    """The answer tokens whose prediction moved most, as ``drift`` lists them."""
    cells = [
        (
            brief(str(row["question"])),
            brief(f"{row['before']}⟨{row['token']}⟩"),
            f"{brief(str(row['top_base']))} {percent(row['top_base_probability'], 0)}",
            f"{brief(str(row['top_tuned']))} {percent(row['top_tuned_probability'], 0)}",
            f"{row['kl_tuned_base']:.1f}",
        )
        for row in rows[:shown]
    ]
    columns = ("Question", "Right answer ⟨token⟩", "Base would say", "Tuned would say", "KL, nats")
    return Table(f"The answer tokens whose prediction moved most in {model}", columns, cells, frozenset({4}))
