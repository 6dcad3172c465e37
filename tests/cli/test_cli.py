"""The command line as a user meets it: help at once, files where promised, one line for what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file

import tiny
from commands import refused, run

FACT = {"question": "Say a?", "answers": ["a"], "id": "a", "topic": "t", "split": "train", "domain": "id"}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    rows = [
        FACT | {"id": f"{domain}{split}{letter}", "question": f"Say {letter}?", "answers": [letter]}
        | {"split": split, "domain": domain}
        for letter in "abcdefghij"
        for split in ("train", "test")
        for domain in ("id", "ood")
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_help_needs_nothing_heavy() -> None:
    script = (
        "import sys; from knowshift.cli import main; main(['--help']);"
        "print([name for name in ('torch', 'transformers', 'numba', 'polars', 'numpy') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("[]")
    for command in ("demo", "facts", "mastery", "select", "train", "eval", "drift", "diff", "restore", "merge"):
        assert command in shown


def test_diff_needs_no_torch(base_folder: Path, tuned_folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from knowshift.cli import main;"
        f"main(['diff', {str(base_folder)!r}, {str(tuned_folder)!r}, '--out', {str(tmp_path / 'd')!r}]);"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("[]")


def test_the_chain_by_hand(base_folder: Path, facts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mastery, select, train, eval, drift, diff, restore, merge: each command's promised files."""
    mastery, tuned = tmp_path / "mastery", tmp_path / "tuned"
    quick = ["--templates", 3, "--samples", 2, "--max-new-tokens", 3, "--temperature", 1.0]
    assert run("mastery", base_folder, "--facts", facts, "--out", mastery, "--keep-samples", *quick) == 0
    assert {path.name for path in mastery.iterdir()} == {
        "mastery.parquet",
        "samples.parquet",
        "metrics.json",
        "run.json",
        "store",
    }
    table = pl.read_parquet(mastery / "mastery.parquet")
    assert table.height == 40
    level, size = table.filter(split="train", domain="id")["level"].value_counts(sort=True).row(0)
    data = tmp_path / "train.jsonl"
    assert run("select", mastery, "--level", level, "--size", size, "--out", data) == 0
    assert len(data.read_text().splitlines()) == size

    assert run("train", base_folder, "--data", data, "--out", tuned, "--learning-rate", 1e-2, "--fp32") == 0
    assert {"model.safetensors", "config.json", "tokenizer.json", "train_log.parquet", "run.json"} <= {
        path.name for path in tuned.iterdir()
    }
    asked = ["--facts", facts, "--split", "test", "--mastery", mastery]
    assert run("eval", tuned, *asked, "--out", tmp_path / "eval") == 0
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {"answers.parquet", "metrics.json", "run.json"}
    for mode in ("teacher", "paper"):
        out = tmp_path / f"drift-{mode}"
        assert run("drift", base_folder, tuned, *asked, "--mode", mode, "--dtype", "float32", "--out", out) == 0
        assert {path.name for path in out.iterdir()} == {"drift.parquet", "metrics.json", "run.json"}
        assert pl.read_parquet(out / "drift.parquet").height == 20

    assert run("diff", base_folder, tuned, "--out", tmp_path / "diff") == 0
    assert {path.name for path in (tmp_path / "diff").iterdir()} == {
        "concentration.parquet", "modules.parquet", "metrics.json", "run.json",
    }  # fmt: skip
    restored = tmp_path / "restored"
    assert run("restore", base_folder, tuned, "--fraction", "0.2", "--fraction", "1", "--out", restored) == 0
    assert {path.name for path in restored.iterdir()} == {"0.2", "1", "run.json"}
    merged = tmp_path / "merged"
    assert run("merge", "interpolate", base_folder, tuned, "--alpha", 0.0, "--out", merged) == 0
    base, back = load_file(base_folder / "model.safetensors"), load_file(merged / "model.safetensors")
    assert all(back[name].equal(base[name]) for name in base)
    assert run("merge", "interpolate", base_folder, tuned, "--alpha", 0.0, "--out", merged) == 0  # and again
    printed = capsys.readouterr().out
    assert "in-domain" in printed
    assert "nats" in printed
    record = json.loads((restored / "run.json").read_text())
    assert record["command"] == "restore"
    assert record["options"]["fractions"] == ["0.2", "1"]
    assert set(record["models"]) == {"base", "tuned"}


def test_facts_come_and_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("facts", "list") == 0
    assert "world" in capsys.readouterr().out
    out = tmp_path / "test.jsonl"
    assert run("facts", "export", "world", "--split", "test", "--out", out) == 0
    assert {json.loads(line)["split"] for line in out.read_text().splitlines()} == {"test"}
    assert run("facts", "export", out, "--out", tmp_path / "again.jsonl") == 0
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()


def test_bad_input_is_one_line(
    base_folder: Path, tuned_folder: Path, facts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps(FACT) + "\n{oops\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    in_a_file = facts / "out"
    for said, arguments in {
        "none.jsonl": ["demo", "--model", base_folder, "--facts", tmp_path / "none.jsonl", "--out", out],
        "nowhere:": ["demo", "--model", tmp_path / "nowhere", "--out", out],
        "no such facts file": ["mastery", base_folder, "--facts", tmp_path / "none.jsonl", "--out", out],
        "broken.jsonl:2": ["mastery", base_folder, "--facts", broken, "--out", out],
        "nowhere": ["mastery", tmp_path / "nowhere", "--facts", facts, "--out", out],
        "safetensors": ["mastery", empty, "--facts", facts, "--out", out],
        "facts.jsonl": ["mastery", base_folder, "--facts", facts, "--out", in_a_file],
        "temperature": ["mastery", base_folder, "--facts", facts, "--out", out, "--temperature", "-1"],
        "--templates": ["mastery", base_folder, "--facts", facts, "--out", out, "--templates", "22"],
        "'--samples'": ["mastery", base_folder, "--facts", facts, "--out", out, "--samples", "many"],
        "1.5": ["restore", base_folder, tuned_folder, "--fraction", "1.5", "--out", out],
        "nan": ["restore", base_folder, tuned_folder, "--fraction", "nan", "--out", out],
        "half": ["restore", base_folder, tuned_folder, "--fraction", "half", "--out", out],
        "'--fraction'": ["restore", base_folder, tuned_folder, "--out", out],
        "mastery.parquet": ["select", tmp_path, "--level", "1", "--size", "2", "--out", out],
        "'--region'": ["diff", base_folder, tuned_folder, "--region", "everywhere", "--out", out],
        "no option --drop": ["merge", "interpolate", base_folder, tuned_folder, "--drop", "0.5", "--out", out],
        "--alpha": ["merge", "interpolate", base_folder, tuned_folder, "--out", out],
        "'split'": ["eval", base_folder, "--facts", facts, "--split", "validation", "--out", out],
        "No such command": ["predict"],
    }.items():
        line = refused(capsys, *arguments)
        assert said.strip("'") in line, line
        assert not out.exists()


def test_other_tokenizers_are_refused(
    base_folder: Path, facts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny.checkpoint(tmp_path / "other")
    tiny.tokenizer(vocabulary=300).save_pretrained(other)
    line = refused(capsys, "drift", base_folder, other, "--facts", facts, "--out", tmp_path / "out")
    assert "token" in line
    assert not (tmp_path / "out").exists()


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch, facts: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("knowshift.facts.sources.read_facts", broken)
    with pytest.raises(ZeroDivisionError):
        run("facts", "export", facts, "--out", "x.jsonl")


def test_a_full_disk_is_one_line(base_folder: Path, tuned_folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = [sys.executable, "-m", "knowshift", "facts", "export", "world", "--out", "/dev/full/x.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
