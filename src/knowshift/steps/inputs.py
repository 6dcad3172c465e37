"""What several steps begin with: facts and models chosen by name, levels and templates of a mastery run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.sources import read_facts
from knowshift.mastery.select import read_mastery
from knowshift.seeds import derive

if TYPE_CHECKING:
    pass

SHOTS = 5


def resolve_pair(base: str, tuned: str) -> tuple[Path, Path, dict[str, str]]:
    """The checkpoints of two models by name, and the digests that ``run.json`` keeps of them."""
    from knowshift.models import digest, resolve

    base_path, tuned_path = resolve(base), resolve(tuned)
    return base_path, tuned_path, {"base": digest(base_path), "tuned": digest(tuned_path)}


def choose(facts: list[Fact], limit: int | None, seed: int) -> list[Fact]:
    """``limit`` of ``facts``, drawn at random under ``seed`` (fewer are part of more), in their own order."""
    if limit is None or limit >= len(facts):
        return facts
    if limit < 1:
        raise InputError(f"--limit must be at least 1, not {limit}")
    drawn = sorted(facts, key=lambda fact: derive(seed, "limit", fact.id))[:limit]
    kept = {fact.id for fact in drawn}
    return [fact for fact in facts if fact.id in kept]


def draw_shots(source: str, facts: Sequence[Fact], seed: int) -> list[Fact]:
    """Solved examples for few-shot prompts: from the train split, never a question that is asked."""
    asked = {(fact.topic, fact.question) for fact in facts}
    pool = [fact for fact in read_facts(source) if fact.split == "train" and (fact.topic, fact.question) not in asked]
    if len(pool) < SHOTS:
        raise InputError(f"{source}: few-shot prompts take {SHOTS} facts of split 'train', found {len(pool)}")
    return sorted(pool, key=lambda fact: derive(seed, "shots", fact.id))[:SHOTS]


def read_levels(run: Path | None, facts: Sequence[Fact]) -> dict[str, int] | None:
    """The mastery level of each of ``facts`` that a mastery run scored; the others have none.

    Raises:
        InputError: if the run scored none of them.
    """
    if run is None:
        return None
    table = read_mastery(run)
    levels = dict(zip(table["id"].to_list(), table["level"].to_list(), strict=True))
    known = {fact.id: levels[fact.id] for fact in facts if fact.id in levels}
    if not known:
        raise InputError(f"{run}: none of the {len(facts)} facts was scored there (first: {facts[0].id!r})")
    return known


def best_templates(run: Path | None) -> dict[str, int] | None:
    """For each topic of a mastery run, the template with most hits (the first among equals)."""
    if run is None:
        return None
    table = read_mastery(run)
    if "template_hits" not in table.columns:
        raise InputError(f"{run}: the mastery table has no column template_hits; score it again")
    totals = (
        table.select("topic", "template_hits")
        .with_columns(template=pl.int_ranges(pl.col("template_hits").list.len()))
        .explode("template_hits", "template")
        .group_by("topic", "template")
        .agg(pl.col("template_hits").sum())
        .sort("topic", "template_hits", "template", descending=[False, True, False])
        .group_by("topic", maintain_order=True)
        .first()
    )
    return dict(zip(totals["topic"].to_list(), totals["template"].to_list(), strict=True))
