"""Divergences at positions as a table of facts or of windows of a text, and the table as figures.

Columns of the table: id, topic, domain, level, tokens (how many were averaged over), kl_tuned_base,
kl_base_tuned, top1_agree (share of tokens where both models' first choice is the same). `teacher` adds the mean
log-probability of the answer's tokens under both models, and the divergence on the prompt's tokens and at the end
token, each apart: where an answer ends is a matter of form, and after training it moves more than any fact.
`paper` adds the base model's template.

A window of a text has neither topic, domain nor level; its answer is the completion, or all of a text without a
prompt. A window that lies in a prompt alone has 0 tokens and nothing to average.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch

from knowshift.facts.fact import Fact
from knowshift.measure.kl import Divergence
from knowshift.measure.passages import Passage
from knowshift.measure.statistics import RESAMPLES, bootstrap_mean
from knowshift.measure.strata import domains, level_column, missing_levels, with_strata

FIGURES = ("kl_tuned_base", "kl_base_tuned", "top1_agree")
ENDS = {"top1_agree": (0.0, 1.0)}
PARTS = ("prompt", "answer", "end")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MOVED_MOST = 25
# Tokens shown before one that moved.
BEFORE = 24


class Item(Protocol):
    """What a row of the table is about: a fact, or a window of a text."""

    @property
    def id(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def domain(self) -> str | None: ...


def positions(passages: Sequence[Passage], targets: torch.Tensor, compared: Divergence) -> pl.DataFrame:
    """One row a position: the passage's index, the part (prompt, answer or end) its target is of, what was compared."""
    kept, answer, end = (
        np.array([getattr(passage, name) for passage in passages], np.int64) for name in ("kept", "answer", "end")
    )
    lengths = np.stack([kept - answer - end, answer, end], axis=1).ravel()
    parts = pl.Series(PARTS, dtype=pl.Enum(PARTS)).gather(np.tile(np.arange(len(PARTS)), len(passages)).repeat(lengths))
    columns = {name: column.numpy() for name, column in compared._asdict().items()}
    return pl.DataFrame(
        {
            "fact": np.arange(len(passages)).repeat(kept),
            "part": parts,
            "target": targets.numpy(),
            "kl_tuned_base": columns.pop("tuned_base"),
            "kl_base_tuned": columns.pop("base_tuned"),
            **columns,
        }
    ).with_columns(top1_agree=(pl.col("top_base") == pl.col("top_tuned")).cast(pl.Float64))


def teacher(items: Sequence[Item], levels: Mapping[str, int] | None, positions: pl.DataFrame) -> pl.DataFrame:
    """The table of mode `teacher`: means over the answer's tokens of each fact or window."""
    answer, kl = pl.col("part") == "answer", pl.col("kl_tuned_base")
    figures = positions.group_by("fact", maintain_order=True).agg(
        answer.sum().cast(pl.Int32).alias("tokens"),
        *(pl.col(name).filter(answer).mean() for name in FIGURES),
        logprob_base=pl.col("target_base").filter(answer).mean(),
        logprob_tuned=pl.col("target_tuned").filter(answer).mean(),
        prompt_kl_tuned_base=kl.filter(pl.col("part") == "prompt").mean(),
        end_kl_tuned_base=kl.filter(pl.col("part") == "end").mean(),
    )
    return pl.concat([_described(items, levels), figures.drop("fact")], how="horizontal")


def paper(
    facts: Sequence[Fact],
    levels: Mapping[str, int] | None,
    templates: Mapping[str, int],
    tuned_base: torch.Tensor,
    base_tuned: torch.Tensor,
    agree: torch.Tensor,
) -> pl.DataFrame:
    """The table of facts of mode `paper`: the first predicted token of each fact."""
    return _described(facts, levels).with_columns(
        tokens=pl.lit(1, pl.Int32),
        kl_tuned_base=pl.Series(tuned_base.numpy()),
        kl_base_tuned=pl.Series(base_tuned.numpy()),
        top1_agree=pl.Series(agree.numpy()).cast(pl.Float64),
        template=pl.Series([templates[fact.topic] for fact in facts], dtype=pl.Int32),
    )


def summarise(table: pl.DataFrame, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """``metrics.json`` of a drift table: means with 95 % intervals, every row counting once, and quantiles.

    Returns:
        facts (rows), tokens; each figure's mean over all facts, and under ``intervals`` the same with its bounds;
        ``domains`` with each figure's mean, its unweighted mean over levels (null where nothing has a level)
        and its mean in each level; ``quantiles`` over facts.
    """

    def means(rows: pl.DataFrame, strata: pl.Series | None = None) -> dict[str, Any]:
        return {
            name: bootstrap_mean(rows[name], strata, ends=ENDS.get(name), seed=seed, resamples=resamples).to_json()
            for name in FIGURES
        }

    def over_levels(rows: pl.DataFrame) -> dict[str, Any] | None:
        scored = with_strata(rows.drop_nulls("level"))
        return None if scored.is_empty() else means(scored, scored["stratum"])

    facts, by_domain = table.height, {}
    for domain in domains(table):
        rows = table.filter(pl.col("domain") == domain)
        parts = rows.drop_nulls("level").partition_by("level", as_dict=True)
        by_domain[domain] = {
            "facts": rows.height,
            **means(rows),
            "mean_over_levels": over_levels(rows),
            "levels": {str(level): {"facts": part.height, **means(part)} for (level,), part in sorted(parts.items())},
            "levels_missing": missing_levels(rows),
        }
    table = table.filter(pl.col("tokens") > 0)
    overall = means(table)
    return {
        "facts": facts,
        "tokens": int(table["tokens"].sum()),
        **{name: mean["value"] for name, mean in overall.items()},
        "intervals": overall,
        "domains": by_domain,
        "quantiles": {name: _quantiles(table[name]) for name in FIGURES[:2]},
    }


def by_token(items: Sequence[Item], positions: pl.DataFrame, tokenizer: Any) -> dict[str, Any]:
    """Figures of single tokens in mode `teacher`: answers, prompts and ends apart; what moved most, in words.

    Returns:
        ``answer``, ``prompt`` and ``end``: tokens, means and quantiles with every token counting once (null without
        tokens); ``logprob``: mean log-probability of the answers' tokens under each model; ``moved_most``: the
        answer tokens with the largest KL(tuned || base), what came before each in the answer, and what each
        model would have said there with which probability; ``moved_tokens``: the tokens of the vocabulary with the
        largest share of all the answers' KL(tuned || base), how often each stood there, and its mean.
    """
    answer, prompt, end = (positions.filter(pl.col("part") == part) for part in ("answer", "prompt", "end"))
    return {
        "answer": _tokens(answer),
        "prompt": _tokens(prompt),
        "end": _tokens(end),
        "logprob": {side: _mean(answer[f"target_{side}"]) for side in ("base", "tuned")},
        "moved_most": _moved_most(items, answer, tokenizer),
        "moved_tokens": _moved_tokens(answer, tokenizer),
    }


def _described(items: Sequence[Item], levels: Mapping[str, int] | None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [item.id for item in items],
            "topic": [item.topic for item in items],
            "domain": pl.Series([item.domain for item in items], dtype=pl.String),
            "level": level_column([item.id for item in items], levels),
        }
    )


def _tokens(rows: pl.DataFrame) -> dict[str, Any] | None:
    if rows.is_empty():
        return None
    return {
        "tokens": rows.height,
        **{name: _mean(rows[name]) for name in FIGURES},
        "quantiles": {name: _quantiles(rows[name]) for name in FIGURES[:2]},
    }


def _mean(values: pl.Series) -> float:
    return float(values.to_numpy().mean())


def _quantiles(values: pl.Series) -> dict[str, float]:
    found = np.quantile(values.to_numpy(), QUANTILES)
    return {f"{share:g}": float(value) for share, value in zip(QUANTILES, found, strict=True)}


def _moved_tokens(answer: pl.DataFrame, tokenizer: Any) -> list[dict[str, Any]]:
    kl = pl.col("kl_tuned_base")
    sums = answer.group_by("target").agg(pl.len().alias("times"), kl.mean(), share=kl.sum())
    total = float(sums["share"].sum()) or 1.0
    rows = sums.sort(["share", "target"], descending=[True, False]).head(MOVED_MOST)
    return [
        {
            "token": tokenizer.decode([row["target"]]),
            "times": row["times"],
            "kl_tuned_base": row["kl_tuned_base"],
            "share": row["share"] / total,
        }
        for row in rows.iter_rows(named=True)
    ]


def _moved_most(items: Sequence[Item], answer: pl.DataFrame, tokenizer: Any) -> list[dict[str, Any]]:
    said = answer.with_columns(place=pl.int_range(pl.len()).over("fact"))
    rows = said.sort("kl_tuned_base", descending=True, maintain_order=True).head(MOVED_MOST)
    moved = []
    for row in rows.iter_rows(named=True):
        item = items[row["fact"]]
        before = said.filter((pl.col("fact") == row["fact"]) & (pl.col("place") < row["place"]))["target"].tail(BEFORE)
        moved.append(
            {
                "id": item.id,
                **({"question": item.question} if isinstance(item, Fact) else {}),
                "before": tokenizer.decode(before.to_list()),
                "token": tokenizer.decode([row["target"]]),
                "token_base": float(np.exp(row["target_base"])),
                "token_tuned": float(np.exp(row["target_tuned"])),
                "top_base": tokenizer.decode([row["top_base"]]),
                "top_base_probability": float(np.exp(row["top_base_logprob"])),
                "top_tuned": tokenizer.decode([row["top_tuned"]]),
                "top_tuned_probability": float(np.exp(row["top_tuned_logprob"])),
                "kl_tuned_base": row["kl_tuned_base"],
            }
        )
    return moved
