"""Closed-book accuracy: ask every fact greedily, match the answers, sum up (paper, section 3).

Both matchers stand side by side: the paper's containment, and the strict one that does not credit rambling. The
log-probability of the right answer moves where accuracy is flat.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.matching import contains, strict
from knowshift.generate.encode import continuations
from knowshift.generate.engine import Engine
from knowshift.measure.forms import answer_text, continuation, ended, in_format, put
from knowshift.measure.statistics import MATCHERS, RESAMPLES, Match, bootstrap_mean, headline, wilson
from knowshift.measure.strata import domains, level_column, missing_levels
from knowshift.progress import bar

SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "topic": pl.String,
    "subject": pl.String,
    "question": pl.String,
    "answers": pl.List(pl.String),
    "domain": pl.String,
    "level": pl.Int8,
    "text": pl.String,
    "contains": pl.Boolean,
    "strict": pl.Boolean,
    "in_format": pl.Boolean,
    "tokens": pl.Int32,
    "gold_log_prob": pl.Float64,
    "gold_tokens": pl.Int32,
}


def evaluate(
    engine: Engine,
    facts: Sequence[Fact],
    *,
    max_new_tokens: int = 16,
    levels: Mapping[str, int] | None = None,
    form: str = "trained",
    shots: Sequence[Fact] = (),
) -> pl.DataFrame:
    """Ask every fact once, greedily, and match what the model says.

    Args:
        engine: the model.
        facts: what is asked.
        max_new_tokens: longest answer; the paper's limit is 16.
        levels: mastery level of each fact by its id; a fact that is not there has none.
        form: how the question is put, see ``forms.put``.
        shots: solved examples for the form `few-shot`.

    Returns:
        One row a fact, in their order: id, topic, subject, question, answers, domain, level (null without),
        text, contains, strict, in_format, tokens (decoded, an end token included; after solved examples up to the
        end of the line), gold_log_prob and gold_tokens: log-probability in nats per token of the preferred answer
        after the same prompt, and how many tokens it has, without an end token.

    Raises:
        InputError: without facts, for a form and shots that do not go together, a chat template that is lacking,
            prompts that do not fit the model's context, an answer that is no token at all, or logits that are not
            finite.
    """
    if not facts:
        raise InputError("there are no facts to ask")
    prompts = [put(fact.question, form, shots) for fact in facts]
    gold = continuations(engine.tokenizer, prompts, [continuation(fact.answers[0], form) for fact in facts])
    for fact, ids in zip(facts, gold, strict=True):
        if not ids:
            raise InputError(f"fact {fact.id!r}: the answer {fact.answers[0]!r} is no token at all")

    def stop(_: int, text: str) -> bool:
        return ended(text, form)

    with bar("asking", len(prompts)) as advance:
        answered = engine.answer(
            prompts,
            gold,
            max_new_tokens=max_new_tokens,
            stop=stop if form == "few-shot" else None,
            advance=advance,
        )
    completions = [completion for completion, _ in answered]
    texts = [answer_text(completion, form) for completion in completions]
    return pl.DataFrame(
        {
            "id": [fact.id for fact in facts],
            "topic": [fact.topic for fact in facts],
            "subject": [fact.subject for fact in facts],
            "question": [fact.question for fact in facts],
            "answers": [list(fact.answers) for fact in facts],
            "domain": [fact.domain for fact in facts],
            "level": level_column([fact.id for fact in facts], levels),
            "text": texts,
            "contains": [contains(text, fact.answers) for text, fact in zip(texts, facts, strict=True)],
            "strict": [strict(text, fact.answers) for text, fact in zip(texts, facts, strict=True)],
            "in_format": [in_format(completion, form) for completion in completions],
            "tokens": [completion.tokens for completion in completions],
            "gold_log_prob": [log_prob / len(ids) for (_, log_prob), ids in zip(answered, gold, strict=True)],
            "gold_tokens": [len(ids) for ids in gold],
        },
        schema=SCHEMA,
    )


def summarise(answers: pl.DataFrame, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """``metrics.json`` of an evaluation: every proportion with its 95 % interval.

    Means over levels come with a bootstrap interval (resampled within levels), single proportions with
    Wilson's. A level without facts is left out of the mean and named under ``levels_missing``. Where no fact
    has a level, ``mean_over_levels`` is null and the headline takes the plain mean. ``gold_log_prob`` is the mean
    over facts of the right answer's log-probability: ``per_token``, also by level, and ``answer``, summed over the
    answer's tokens.

    Raises:
        InputError: if the table is empty.
    """
    if answers.is_empty():
        raise InputError("there are no answers to sum up")
    by_domain = {domain: answers.filter(pl.col("domain") == domain) for domain in domains(answers)}
    return {
        "facts": answers.height,
        "headline": {match: headline(answers, match, seed=seed, resamples=resamples).to_json() for match in MATCHERS},
        **{
            match: {domain: _domain(rows, match, seed=seed, resamples=resamples) for domain, rows in by_domain.items()}
            for match in MATCHERS
        },
        "in_format": {domain: _share(rows["in_format"]) for domain, rows in by_domain.items()},
        "gold_log_prob": {
            domain: _gold(rows, seed=seed, resamples=resamples)
            for domain, rows in by_domain.items()
            if "gold_log_prob" in rows.columns
        },
        "levels_missing": {domain: missing_levels(rows) for domain, rows in by_domain.items()},
        "without_level": {domain: rows["level"].null_count() for domain, rows in by_domain.items()},
    }


def _domain(rows: pl.DataFrame, match: Match, *, seed: int, resamples: int) -> dict[str, Any]:
    scored = rows.drop_nulls("level")
    mean = headline(scored, match, seed=seed, resamples=resamples).to_json() if scored.height else None
    return {
        "facts": rows.height,
        "mean_over_levels": mean,
        "micro": _share(rows[match]),
        "levels": {
            str(level): {**_share(part[match]), "facts": part.height}
            for (level,), part in sorted(scored.partition_by("level", as_dict=True).items())
        },
        "topics": {
            str(topic): {"value": _share(part[match])["value"], "facts": part.height}
            for (topic,), part in sorted(rows.partition_by("topic", as_dict=True).items())
        },
    }


def _gold(rows: pl.DataFrame, *, seed: int, resamples: int) -> dict[str, Any]:
    def mean(values: pl.Series) -> dict[str, float]:
        return bootstrap_mean(values.to_numpy(), seed=seed, resamples=resamples).to_json()

    return {
        "per_token": mean(rows["gold_log_prob"]),
        "answer": mean(rows["gold_log_prob"] * rows["gold_tokens"]),
        "levels": {
            str(level): mean(part["gold_log_prob"])
            for (level,), part in sorted(rows.drop_nulls("level").partition_by("level", as_dict=True).items())
        },
    }


def _share(hits: pl.Series) -> dict[str, float]:
    return wilson(int(hits.sum()), len(hits)).to_json()
