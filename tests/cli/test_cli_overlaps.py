"""--drop-overlaps where facts are scored: train loses what test asks too, and one line says how much."""

import json
from pathlib import Path

import polars as pl
import pytest

from knowshift.cli import main

BRIEF = {"mastery": ["--templates", "1", "--samples", "1", "--max-new-tokens", "2"], "eval": ["--max-new-tokens", "2"]}


@pytest.mark.parametrize(("command", "table"), [("mastery", "mastery"), ("eval", "answers")])
@pytest.mark.parametrize("drop", [False, True])
def test_train_loses_what_test_asks(
    command: str, table: str, drop: bool, base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts, out = tmp_path / "facts.jsonl", tmp_path / "out"
    asked = [("a", "train"), ("b", "train"), ("b", "test")]
    rows = [{"id": f"{q}-{split}", "question": f"Say {q}?", "answer": q, "split": split} for q, split in asked]
    facts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--drop-overlaps"] if drop else []
    arguments = [command, str(base_folder), "--facts", str(facts), "--out", str(out), *BRIEF[command], *flags]
    assert main(arguments) == 0
    error = capsys.readouterr().err
    assert f"{facts}: 1 facts of train are asked in test too ({'left out' if drop else 'kept'}" in error
    ids = pl.read_parquet(out / f"{table}.parquet")["id"].to_list()
    assert sorted(ids) == (["a-train", "b-test"] if drop else ["a-train", "b-test", "b-train"])
    assert json.loads((out / "run.json").read_text())["options"]["drop_overlaps"] is drop
