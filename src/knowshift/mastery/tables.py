"""From stored records to the tables of a mastery run: one row a fact, and one row a draw.

Arrays have the shape (facts, phrasings, draws). Knows nothing of engines or of where records are kept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from knowshift.errors import InputError
from knowshift.facts.fact import DOMAINS, Fact
from knowshift.mastery.ask import MasteryOptions
from knowshift.mastery.levels import LEVELS, level
from knowshift.mastery.slick import CLASSES, slick

SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "topic": pl.String,
    "subject": pl.String,
    "question": pl.String,
    "answers": pl.List(pl.String),
    "split": pl.String,
    "domain": pl.String,
    "hits": pl.Int32,
    "trials": pl.Int32,
    "mastery": pl.Float64,
    "level": pl.Int8,
    "strict_hits": pl.Int32,
    "template_hits": pl.List(pl.Int32),
    "greedy_hits": pl.Int32,
    "slick": pl.String,
}
SAMPLES_SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "template": pl.Int32,
    "sample": pl.Int32,
    "text": pl.String,
    "hit": pl.Boolean,
    "strict": pl.Boolean,
    "tokens": pl.Int32,
    "finish": pl.String,
}


def draws_of(records: pl.DataFrame, prompts: int, samples: int, *, texts: bool) -> pl.DataFrame:
    """One row a draw, the first ``samples`` of each prompt, sorted by ``prompt`` and ``sample``.

    A draw that stands in several records (two runs made it at the same time) is taken from the first.

    Args:
        records: as ``Store.read`` gives them.
        prompts: how many prompts they are for.
        samples: draws for each.
        texts: take only draws whose text was kept, and their texts.
    """
    lists = ["hits", "strict", *(("texts", "tokens", "finish") if texts else ())]
    chosen = records.filter("kept") if texts else records
    draws = (
        chosen.select("prompt", *lists, sample=pl.int_ranges("first", pl.col("first") + pl.col("count")))
        .explode("sample", *lists)
        .filter(pl.col("sample") < samples)
        .unique(["prompt", "sample"], keep="first", maintain_order=True)
        .sort("prompt", "sample")
    )
    if draws.height != prompts * samples:
        raise InputError("the store was changed while it was being read: run the same command again")
    return draws


def mastery_rows(
    facts: Sequence[Fact], records: pl.DataFrame, draws: pl.DataFrame, options: MasteryOptions
) -> pl.DataFrame:
    """One row a fact: the columns of ``SCHEMA``."""
    shape = (len(facts), options.templates, options.samples)
    hits, strict = (draws[name].to_numpy().reshape(shape) for name in ("hits", "strict"))
    greedy = _greedy(records, shape[:2]) if options.slick else [None] * len(facts)
    rows = [
        _row(fact, own.sum(axis=1).tolist(), int(own_strict.sum()), own_greedy, options)
        for fact, own, own_strict, own_greedy in zip(facts, hits, strict, greedy, strict=True)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def sample_rows(facts: Sequence[Fact], draws: pl.DataFrame, templates: int) -> pl.DataFrame:
    """One row a draw: the columns of ``SAMPLES_SCHEMA``."""
    ids = pl.Series("id", [fact.id for fact in facts], pl.String)
    table = draws.with_columns(
        id=ids.gather(draws["prompt"] // templates),
        template=pl.col("prompt") % templates,
    ).rename({"texts": "text", "hits": "hit"})
    return table.select(pl.col(name).cast(kind) for name, kind in SAMPLES_SCHEMA.items())


def summary(mastery: pl.DataFrame) -> dict[str, Any]:
    """Facts by level and by SliCK class, and the mean mastery score, for each domain."""
    figures: dict[str, Any] = {"facts": mastery.height, "levels": {}, "slick": {}, "mastery": {}, "strict": {}}
    for domain in DOMAINS:
        own = mastery.filter(pl.col("domain") == domain)
        if not own.height:
            continue
        figures["levels"][domain] = {str(number): own.filter(level=number).height for number in LEVELS}
        if own["slick"].null_count() == 0:
            figures["slick"][domain] = {name: own.filter(slick=name).height for name in CLASSES}
        figures["mastery"][domain] = own["mastery"].mean()
        figures["strict"][domain] = (own["strict_hits"] / own["trials"]).mean()
    return figures


def _greedy(records: pl.DataFrame, shape: tuple[int, ...]) -> list[int]:
    """How many phrasings of each fact are greedily right."""
    known = records.drop_nulls("greedy").unique("prompt", keep="first", maintain_order=True).sort("prompt")
    if known.height != np.prod(shape):
        raise InputError("the store was changed while it was being read: run the same command again")
    counted: list[int] = known["greedy"].to_numpy().reshape(shape).sum(axis=1).tolist()
    return counted


def _row(
    fact: Fact, template_hits: list[int], strict_hits: int, greedy_hits: int | None, options: MasteryOptions
) -> tuple[Any, ...]:
    hits, trials = sum(template_hits), options.trials
    return (
        fact.id,
        fact.topic,
        fact.subject,
        fact.question,
        list(fact.answers),
        fact.split,
        fact.domain,
        hits,
        trials,
        hits / trials,
        level(hits, trials),
        strict_hits,
        template_hits,
        greedy_hits,
        None if greedy_hits is None else slick(greedy_hits, options.templates, hits),
    )
