"""What became of each fact between two models: kept, lost, gained or never, by name.

Works on two answer tables of the same facts, of whatever models, as ``accuracy.evaluate`` writes them.
"""

from typing import Any

import polars as pl

from knowshift.measure.pairs import DESCRIPTION, pair
from knowshift.measure.statistics import (
    MATCHERS,
    RESAMPLES,
    Match,
    headline_difference,
    mcnemar_exact,
    micro_difference,
    paired_difference,
)
from knowshift.measure.strata import domains

GOLD = "gold_log_prob"
CHANGES = ("kept", "lost", "gained", "never")


def transitions(before: pl.DataFrame, after: pl.DataFrame, *, match: Match = "contains") -> pl.DataFrame:
    """What became of each fact.

    Args:
        before: answers of the first model, such as the base.
        after: answers of the second.
        match: the matcher that says whether a model knew the fact.

    Returns:
        In the order of ``before``: id, topic, subject, question, answers, domain, level, before and after
        (what each model said), change (kept: right both times; lost: right, then wrong; gained: wrong, then
        right; never: wrong both times).

    Raises:
        InputError: if the two do not hold the same facts.
    """
    was, now = pl.col(f"{match}_before"), pl.col(f"{match}_after")
    change = (
        pl.when(was & now)
        .then(pl.lit("kept"))
        .when(was)
        .then(pl.lit("lost"))
        .when(now)
        .then(pl.lit("gained"))
        .otherwise(pl.lit("never"))
    )
    table = pair(before, after, ("text", match))
    described = [name for name in DESCRIPTION if name in table.columns]
    return table.select(*described, before=pl.col("text_before"), after=pl.col("text_after"), change=change)


def named(table: pl.DataFrame, change: str, most: int) -> list[str]:
    """The first ``most`` facts of one change in a line each: question, right answer, and what was said after."""
    rows = table.filter(pl.col("change") == change).head(most)
    return [
        f"{row['question']} {row['answers'][0]}; now: {' '.join(row['after'].split()) or 'nothing'}"
        for row in rows.iter_rows(named=True)
    ]


def count(table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """How many facts of each change, by domain, with McNemar's exact p.

    Args:
        table: as ``transitions`` returns it.

    Returns:
        For each domain: kept, lost, gained, never, ``mcnemar_p`` (two-sided, that losing and gaining were
        equally likely), and the same four counts under ``levels`` and ``topics``.
    """
    counted: dict[str, dict[str, Any]] = {}
    for domain in domains(table):
        rows = table.filter(pl.col("domain") == domain)
        total = _count(rows)
        counted[domain] = {
            **total,
            "mcnemar_p": mcnemar_exact(total["lost"], total["gained"]),
            "levels": _by(rows.drop_nulls("level"), "level"),
            "topics": _by(rows, "topic"),
        }
    return counted


def compare(before: pl.DataFrame, after: pl.DataFrame, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """What changed between two models, in figures.

    Args:
        before: answers of the first model.
        after: answers of the second to the same facts.
        seed: of the resampling.
        resamples: how many.

    Returns:
        facts; by matcher ``difference`` (after minus before with its 95 % interval, by a paired bootstrap:
        ``mean_over_levels``, resampled within levels and the plain mean where no fact has one, and ``micro``; over
        both domains and for each) and ``domains`` (as ``count`` gives them); ``gold_log_prob``, the difference in
        nats per token for each domain, where both tables have it.

    Raises:
        InputError: if the two do not hold the same facts.
    """
    parts = {"both": (before, after)}
    for domain in domains(before):
        own = before.filter(pl.col("domain") == domain)
        parts[domain] = own, after.join(own, on="id", how="semi")
    figures: dict[str, Any] = {"facts": before.height}
    for match in MATCHERS:
        counts = count(transitions(before, after, match=match))
        differences = {
            name: {
                "mean_over_levels": headline_difference(old, new, match, seed=seed, resamples=resamples).to_json(),
                "micro": micro_difference(old, new, match, seed=seed, resamples=resamples).to_json(),
            }
            for name, (old, new) in parts.items()
        }
        figures[match] = {"difference": differences, "domains": counts}
    if all(GOLD in table.columns for table in (before, after)):
        figures[GOLD] = {}
        for domain in domains(before):
            table = pair(*parts[domain], (GOLD,))
            change = paired_difference(table[f"{GOLD}_before"], table[f"{GOLD}_after"], seed=seed, resamples=resamples)
            figures[GOLD][domain] = change.to_json()
    return figures


def _count(rows: pl.DataFrame) -> dict[str, int]:
    return {change: int((rows["change"] == change).sum()) for change in CHANGES}


def _by(rows: pl.DataFrame, column: str) -> dict[str, dict[str, int]]:
    parts = rows.partition_by(column, as_dict=True)
    return {str(key): _count(part) for (key,), part in sorted(parts.items())}
