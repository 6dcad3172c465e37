"""The headline figures of a demo run, computed from the files of its stages and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from knowshift.facts.fact import DOMAINS
from knowshift.files import read_json
from knowshift.mastery.select import count_levels, read_mastery
from knowshift.measure.statistics import Estimate, headline, micro, micro_difference
from knowshift.measure.transitions import count

TUNED = ("low", "middle")


def headline_figures(out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What ``metrics.json`` holds.

    ``accuracy`` is the share of all test facts answered, and ``both`` the mean of the two domains: the figure that
    choices are made by. ``accuracy_over_levels`` is the paper's, the unweighted mean over levels; with few facts
    in the upper levels it is too uncertain to decide anything.

    Args:
        out: the run folder.
        options: the demo's options as resolved.
    """
    seed = options["seed"]
    answers = {path.name: pl.read_parquet(path / "answers.parquet") for path in sorted((out / "eval").iterdir())}
    scored = read_mastery(out / "mastery")

    def difference(before: str, after: str) -> dict[str, float]:
        return micro_difference(answers[before], answers[after], seed=seed).to_json()

    return {
        "model": options["model"],
        "facts": scored.height,
        "levels": {domain: _levels(scored, domain) for domain in DOMAINS},
        "models": {name: _training(out, name, options["method"]) for name in TUNED},
        "accuracy": {name: _accuracy(table, micro, seed) for name, table in answers.items()},
        "accuracy_over_levels": {name: _accuracy(table, headline, seed) for name, table in answers.items()},
        "transitions": {
            name: count(pl.read_parquet(out / "transitions" / f"{name}.parquet")) for name in (*TUNED, "restored")
        },
        "drift": {name: read_json(out / "drift" / name / "metrics.json") for name in TUNED},
        "concentration": {name: _concentration(out / "diff" / name) for name in TUNED},
        "restoration": {
            **read_json(out / "sweep" / "choice.json"),
            "test_difference": difference("low", "restored"),
            "interpolation_difference": difference("low", "interpolated"),
            "against_interpolation": difference("interpolated", "restored"),
        },
        "settings": options,
    }


def _levels(scored: pl.DataFrame, domain: str) -> dict[str, int]:
    return {str(level): facts for level, facts in count_levels(scored.filter(pl.col("domain") == domain)).items()}


def _training(out: Path, name: str, method: str) -> dict[str, Any]:
    lines = pl.read_ndjson(out / "sets" / f"{name}.jsonl")
    level = lines["level"][0]
    return {
        "title": f"{lines.height} facts of level {level}",
        "set": f"sets/{name}.jsonl",
        "size": lines.height,
        "level": level,
        "method": method,
    }


def _accuracy(answers: pl.DataFrame, mean: Callable[..., Estimate], seed: int) -> dict[str, Any]:
    own = {domain: answers.filter(pl.col("domain") == domain) for domain in DOMAINS}
    return {
        **{domain: mean(rows, seed=seed).to_json() for domain, rows in own.items() if rows.height},
        "both": mean(answers, seed=seed).to_json(),
    }


def _concentration(folder: Path) -> dict[str, float]:
    curve = pl.read_parquet(folder / "concentration.parquet")
    top = curve.filter((pl.col("fraction") - 0.01).abs() < 1e-12).row(0, named=True)
    return {
        "top_1_percent_share": top["share"],
        "null": top["null_share"],
        "changed_share": read_json(folder / "metrics.json")["changed_share"],
    }
