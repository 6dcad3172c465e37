"""Scoring on a real tiny model: hits recomputed from the kept samples, resumed runs equal to undisturbed ones."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from knowshift import steps
from knowshift.errors import InputError
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.facts.matching import contains
from knowshift.mastery.levels import level
from knowshift.mastery.score import SAMPLES_SCHEMA, SCHEMA, MasteryOptions

OPTIONS = MasteryOptions(templates=7, samples=3, temperature=1.0, max_new_tokens=6, seed=1)


@pytest.fixture(scope="module")
def facts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Facts whose answers a random model hits now and then: single letters and pairs of them."""
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    letters = "abcdefghijklmnopqrstuvwxyz"
    facts = [
        Fact(id=f"{a}{b}", question=f"Say {a} and {b}?", answers=(a if b == "a" else a + b,), topic="letters")
        for a in letters
        for b in "abcde"
    ]
    write_jsonl(path, (fact.to_json() for fact in facts))
    return path


@pytest.fixture(scope="module")
def scored(base_folder: Path, facts_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mastery")
    steps.mastery(str(base_folder), str(facts_file), out, OPTIONS, keep_samples=True)
    return out


def test_hits_are_what_the_samples_say(scored: Path) -> None:
    table, samples = pl.read_parquet(scored / "mastery.parquet"), pl.read_parquet(scored / "samples.parquet")
    assert dict(table.schema) == SCHEMA
    assert dict(samples.schema) == SAMPLES_SCHEMA
    assert samples.height == table.height * 21
    assert table["level"].n_unique() > 1
    texts = samples.partition_by("id", as_dict=True)
    for row in table.iter_rows(named=True):
        drawn = texts[(row["id"],)]
        hits = [contains(text, row["answers"]) for text in drawn["text"]]
        assert drawn["hit"].to_list() == hits
        assert (row["hits"], row["trials"]) == (sum(hits), 21)
        assert row["mastery"] == sum(hits) / 21
        assert row["level"] == level(sum(hits), 21)
        by_template = drawn.group_by("template", maintain_order=True).agg(pl.col("hit").sum())
        assert row["template_hits"] == by_template["hit"].to_list()


def test_same_seed_same_table_other_seed_other_draws(
    base_folder: Path, facts_file: Path, scored: Path, tmp_path: Path
) -> None:
    again = steps.mastery(str(base_folder), str(facts_file), tmp_path / "again", OPTIONS)
    assert_frame_equal(again, pl.read_parquet(scored / "mastery.parquet"))
    other = steps.mastery(str(base_folder), str(facts_file), tmp_path / "other", OPTIONS.model_copy(update={"seed": 2}))
    assert other["hits"].to_list() != again["hits"].to_list()


def test_a_limit_scores_a_random_part(base_folder: Path, facts_file: Path, tmp_path: Path) -> None:
    few = steps.mastery(str(base_folder), str(facts_file), tmp_path / "few", OPTIONS, limit=9)
    more = steps.mastery(str(base_folder), str(facts_file), tmp_path / "more", OPTIONS, limit=20)
    assert few.height == 9
    assert set(few["id"]) <= set(more["id"])
    assert few["id"].to_list() != more["id"].to_list()[:9]


def test_the_run_can_be_repeated_from_its_record(scored: Path) -> None:
    record = (scored / "run.json").read_text()
    for entry in ('"templates": 7', '"seed": 1', '"torch"', "sha256", '"started"', '"ended"'):
        assert entry in record


def test_killed_anywhere_it_ends_the_same(
    base_folder: Path, facts_file: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "killed"
    script = (
        "import sys; import knowshift.mastery.score as score; score.BLOCK_DRAWS = 300;"
        "from knowshift.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "mastery", str(base_folder), "--facts", str(facts_file)]
    command += ["--out", str(out), "--templates", "7", "--samples", "3", "--temperature", "1.0"]
    command += ["--max-new-tokens", "6", "--seed", "1"]
    waits, kills = random.Random(0), 0
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
        parts = len(list((out / "parts").glob("*.parquet"))) if (out / "parts").exists() else 0
        if kills < 3:
            while process.poll() is None and len(list((out / "parts").glob("*.parquet"))) <= parts:
                time.sleep(0.01)
            time.sleep(waits.random() * 0.2)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                assert not (out / "mastery.parquet").exists()
        process.wait()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr.read() if process.stderr else ""
    assert kills == 3
    monkeypatch.setattr("knowshift.mastery.score.BLOCK_DRAWS", 300)
    undisturbed = steps.mastery(str(base_folder), str(facts_file), tmp_path / "whole", OPTIONS)
    assert_frame_equal(pl.read_parquet(out / "mastery.parquet"), undisturbed)


def test_options_are_checked() -> None:
    for wrong in (
        {"templates": 0},
        {"templates": 22},
        {"samples": 0},
        {"temperature": 0},
        {"temperature": float("nan")},
    ):
        with pytest.raises(InputError, match=r"^--(templates|samples|temperature)"):
            MasteryOptions(**wrong)


def test_no_such_engine(base_folder: Path, facts_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--engine"):
        steps.mastery(str(base_folder), str(facts_file), tmp_path / "x", OPTIONS, engine="oracle")
