"""A mix searched for gives the set that scoring everything would give, and says of each level how common it is."""

import json
from pathlib import Path

import polars as pl
import pytest

from commands import refused, run
from knowshift.facts.fact import Fact, write_jsonl

QUICK = ["--templates", "5", "--samples", "3", "--temperature", "1.0", "--max-new-tokens", "6", "--no-slick"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Facts that a random model knows never or now and then."""
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    facts = [
        Fact(f"{a}{b}{c}", f"Say {a}, {b} and {c}?", (a if c == "p" else a + b,), topic=f"topic {c}", split="train")
        for a in "abcdefghijklmnopqrstuvwxyz"
        for b in "aei"
        for c in "pq"
    ]
    write_jsonl(path, (fact.to_json() for fact in facts))
    return path


def test_as_if_everything_had_been_scored(
    base_folder: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, folder, store = tmp_path / "whole", tmp_path / "run", tmp_path / "store"
    began = ["--facts", source, "--seed", 4, "--store", store, *QUICK]
    assert run("mastery", base_folder, *began, "--out", whole) == 0
    held = pl.read_parquet(whole / "mastery.parquet")["level"].value_counts()
    assert dict(held.iter_rows()).keys() >= {0, 1}
    for what in (["--mix", "0:1,1:2"], ["--level", "0-1"]):
        capsys.readouterr()
        file = tmp_path / "until.jsonl"
        assert run("select", folder, *what, "--until", 15, "--out", file, "--model", base_folder, *began) == 0
        said = capsys.readouterr().out
        assert run("select", whole, *what, "--size", 15, "--seed", 4, "--out", tmp_path / "size.jsonl") == 0
        assert file.read_bytes() == (tmp_path / "size.jsonl").read_bytes()
        record = json.loads((folder / "run.json").read_text())
        if what[0] == "--mix":
            assert "level 0 is" in said and "level 1 is" in said and "15 facts of level 0: 5, level 1: 10" in said
            assert {name: one["wanted"] for name, one in record["search"].items()} == {"0": 5, "1": 10}
            assert record["options"]["mix"] == "0:1,1:2"
            assert pl.read_parquet(folder / "mastery.parquet").height < 0.9 * 156
        else:
            assert "level 0,1 is" in said and record["search"]["wanted"] == 15
    error = refused(
        capsys, "select", folder, "--mix", "0,4", "--until", 120, "--out", tmp_path / "no.jsonl", "--seed", 4
    )
    assert "level 4 holds" in error and "fewer than its 60 of --until 120" in error
    assert not (tmp_path / "no.jsonl").exists()
