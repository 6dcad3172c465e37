"""SFT sets by mastery level: balanced over topics, and nested in size for one seed."""

import json
from pathlib import Path

import polars as pl

from knowshift.errors import InputError
from knowshift.facts.fact import DOMAINS, write_jsonl
from knowshift.facts.prompts import qa_prompt
from knowshift.files import read_parquet
from knowshift.mastery.levels import LEVELS, spelled
from knowshift.seeds import derive


def select(
    mastery: pl.DataFrame,
    *,
    level: int | tuple[int, ...],
    size: int,
    seed: int = 0,
    split: str = "train",
    domain: str = "id",
) -> pl.DataFrame:
    """Choose ``size`` facts of one level for training, or of several in the shares in which they occur.

    Topics take turns, so their counts differ by one at most until a topic runs out; within a topic the order is
    random under ``seed``. A smaller set is the beginning of a larger one (paper, section 3). ``until.find`` scores
    no more facts than this choice needs.

    Args:
        mastery: the table ``score`` wrote.
        level: 0 to 4, or several.
        size: how many facts.
        seed: of the random order.
        split: the split to choose from; a table that names no split is used whole.
        domain: the domain to choose from.

    Raises:
        InputError: if the level holds fewer facts.
    """
    check_choice(level, domain)
    if size < 1:
        raise InputError(f"--size must be at least 1, not {size}")
    pool = check_holds(mastery, level, size, f"--size {size}", split, domain)
    order = pool.with_columns(
        draw=pl.Series([fact_rank(seed, fact) for fact in pool["id"]], dtype=pl.UInt64),
        turn_of=pl.Series([topic_rank(seed, topic) for topic in pool["topic"]], dtype=pl.UInt64),
    ).with_columns(turn=pl.col("draw").rank("ordinal").over("topic"))
    return order.sort("turn", "turn_of", "id").head(size).select(mastery.columns)


def check_choice(level: int | tuple[int, ...], domain: str) -> None:
    """Refuse a level or domain that there is not.

    Raises:
        InputError: naming the flag.
    """
    for one in as_levels(level):
        if one not in LEVELS:
            raise InputError(f"--level must be 0 to 4, not {one}")
    if domain not in DOMAINS:
        raise InputError(f"--domain must be {' or '.join(DOMAINS)}, not {domain!r}")


def as_levels(level: int | tuple[int, ...]) -> tuple[int, ...]:
    """One level or several as several."""
    return (level,) if isinstance(level, int) else level


def check_holds(
    mastery: pl.DataFrame, level: int | tuple[int, ...], size: int, wanted: str, split: str, domain: str
) -> pl.DataFrame:
    """The facts of a level, split and domain; in a table that names no split, of any.

    Raises:
        InputError: if these are fewer than ``size``, which ``wanted`` puts in words.
    """
    levels = as_levels(level)
    pool = mastery.filter(pl.col("level").is_in(levels) & (pl.col("domain") == domain))
    if mastery["split"].str.len_bytes().max() != 0:
        pool = pool.filter(pl.col("split") == split)
    if pool.height < size:
        counts = ", ".join(f"{name}: {count}" for name, count in level_counts(mastery, split, domain).items())
        raise InputError(
            f"level {spelled(levels)} holds {pool.height} facts of split {split!r} and domain {domain!r}, "
            f"fewer than {wanted} (by level {counts})"
        )
    return pool


def fact_rank(seed: int, fact: str) -> int:
    """Where a fact stands within its topic: the least comes first."""
    return derive(seed, "select", fact)


def topic_rank(seed: int, topic: str) -> int:
    """Where a topic stands in each round of turns."""
    return derive(seed, "select topic", topic)


def level_counts(mastery: pl.DataFrame, split: str, domain: str) -> dict[int, int]:
    """How many facts of a split and domain each level holds."""
    pool = mastery.filter(((pl.col("split") == split) | (pl.col("split") == "")) & (pl.col("domain") == domain))
    return count_levels(pool)


def count_levels(mastery: pl.DataFrame) -> dict[int, int]:
    """How many facts of a mastery table each level holds."""
    return {level: mastery.filter(pl.col("level") == level).height for level in LEVELS}


def write_training_set(chosen: pl.DataFrame, path: Path) -> None:
    """Write JSONL that TRL loads as it is: ``prompt``, ``completion``, and where the line comes from.

    Others are told the names of the two columns. LLaMA-Factory, in ``dataset_info.json``: ``"columns": {"prompt":
    "prompt", "response": "completion"}``, with ``template: empty``. Axolotl, as the data set's ``type``:
    ``field_instruction: prompt``, ``field_output: completion``, ``format`` and ``no_input_format``:
    ``"{instruction}"``. The prompt ends where the answer begins, so nothing may be put between them.
    """
    write_jsonl(
        path,
        (
            json.dumps(
                {
                    "prompt": qa_prompt(row["question"]),
                    "completion": row["answers"][0],
                    "id": row["id"],
                    "topic": row["topic"],
                    "level": row["level"],
                },
                ensure_ascii=False,
            )
            for row in chosen.iter_rows(named=True)
        ),
    )


def read_mastery(path: Path) -> pl.DataFrame:
    """The mastery table in a run folder (or a Parquet file itself).

    Raises:
        InputError: if it is missing, damaged, or lacks a column.
    """
    file = path / "mastery.parquet" if path.is_dir() else path
    if not file.exists():
        raise InputError(f"{file}: no such file; run `knowshift mastery` first")
    table = read_parquet(file)
    missing = {"id", "topic", "question", "answers", "split", "domain", "level"} - set(table.columns)
    if missing:
        raise InputError(f"{file}: not a mastery table: no column {', '.join(sorted(missing))}")
    return table
