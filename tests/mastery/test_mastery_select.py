"""Levels, and SFT sets chosen by them."""

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowshift.errors import InputError
from knowshift.mastery.levels import level
from knowshift.mastery.select import read_mastery, select, write_training_set


@given(st.integers(1, 300).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_levels_are_the_papers(pair: tuple[int, int]) -> None:
    hits, trials = pair
    if hits == 0:
        expected = 0
    elif 4 * hits <= trials:
        expected = 1
    elif 2 * hits <= trials:
        expected = 2
    elif 4 * hits <= 3 * trials:
        expected = 3
    else:
        expected = 4
    assert level(hits, trials) == expected


def table(counts: dict[str, int], split: str = "train", level: int = 1) -> pl.DataFrame:
    rows = [
        {
            "id": f"{topic}:{index}",
            "topic": topic,
            "question": f"What of {index}?",
            "answers": ["first", "second"],
            "split": split,
            "domain": "id",
            "level": level,
        }
        for topic, count in counts.items()
        for index in range(count)
    ]
    return pl.DataFrame(rows)


def test_balanced_over_topics_and_nested_in_size() -> None:
    mastery = table({"a": 50, "b": 50, "c": 5})
    small, large = (select(mastery, level=1, size=size, seed=3) for size in (20, 65))
    assert large["id"][:20].to_list() == small["id"].to_list()
    assert dict(large["topic"].value_counts().iter_rows()) == {"a": 30, "b": 30, "c": 5}
    assert sorted(small["topic"].value_counts()["count"]) == [5, 7, 8]
    other = select(mastery, level=1, size=20, seed=4)
    assert set(other["id"]) != set(small["id"])


def test_only_the_wanted_level_split_and_domain() -> None:
    mastery = pl.concat([table({"a": 5}), table({"b": 5}, split="test"), table({"c": 5}, level=2)])
    assert set(select(mastery, level=1, size=5)["topic"]) == {"a"}
    with pytest.raises(InputError, match="level 1 holds 5 facts"):
        select(mastery, level=1, size=6)
    with pytest.raises(InputError, match="--level"):
        select(mastery, level=5, size=1)
    with pytest.raises(InputError, match="--size"):
        select(mastery, level=1, size=0)
    with pytest.raises(InputError, match="--domain"):
        select(mastery, level=1, size=1, domain="wide")


def test_the_other_domain() -> None:
    mastery = pl.concat([table({"a": 5}), table({"b": 4}).with_columns(domain=pl.lit("ood"))])
    assert set(select(mastery, level=1, size=4, domain="ood")["topic"]) == {"b"}


def test_a_table_without_splits_is_used_whole() -> None:
    assert select(table({"a": 5}, split=""), level=1, size=5).height == 5


def test_lines_that_trl_loads(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    write_training_set(select(table({"a": 3}), level=1, size=2), file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [set(line) for line in lines] == [{"prompt", "completion", "id", "topic", "level"}] * 2
    assert lines[0]["prompt"].startswith("<|question|>What of ")
    assert lines[0]["prompt"].endswith("<|answer|>")
    assert lines[0]["completion"] == "first"


def test_trl_prepares_the_file_as_it_is(base_folder: Path, tmp_path: Path) -> None:
    """Loaded as TRL's users load it: question and markers as the prompt, out of the loss; answer and end in it."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    file = tmp_path / "train.jsonl"
    chosen = select(table({"a": 4, "b": 4}), level=1, size=5)
    write_training_set(chosen, file)
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base_folder, dtype="float32"),
        args=SFTConfig(str(tmp_path / "trl"), report_to="none", use_cpu=True, bf16=False),
        train_dataset=load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache")),
        processing_class=tokenizer,
    )
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(5)])
    for row, ids, labels in zip(chosen.iter_rows(named=True), batch["input_ids"], batch["labels"], strict=True):
        learned = labels[labels != -100].tolist()
        assert tokenizer.decode(learned) == "first" + tokenizer.eos_token
        asked = ids[: int((labels != -100).int().argmax())].tolist()
        assert tokenizer.decode(asked) == f"<|question|>{row['question']}<|answer|>"


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_mastery(tmp_path)
    (tmp_path / "mastery.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match="not a readable Parquet"):
        read_mastery(tmp_path)
    pl.DataFrame({"id": ["x"]}).write_parquet(tmp_path / "mastery.parquet")
    with pytest.raises(InputError, match="no column"):
        read_mastery(tmp_path)
