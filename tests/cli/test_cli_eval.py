"""`eval` beside a base model, `transitions` between any two runs: files, figures, and one line for what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from commands import refused, run

CHAT = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"
)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    rows = [
        {"id": f"{domain}{split}{letter}", "question": f"Say {letter} in {split} {domain}?", "answers": [letter]}
        | {"topic": "letters", "split": split, "domain": domain}
        for letter in "abcdef"
        for split in ("train", "test")
        for domain in ("id", "ood")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_beside_the_base(
    base_folder: Path, tuned_folder: Path, facts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    asked = ["--facts", facts, "--split", "test"]
    assert run("eval", tuned_folder, "--base", base_folder, *asked, "--out", out) == 0
    shown = capsys.readouterr()
    assert "against the base asked in the form few-shot: " in shown.out
    folders = {"base-trained", "base-plain", "base-few-shot"}
    files = {"answers.parquet", "metrics.json", "run.json", "transitions.parquet"}
    assert {path.name for path in out.iterdir()} == files | folders
    moved = pl.read_parquet(out / "transitions.parquet")
    assert moved.height == 3 * 12
    assert set(moved["form"]) == {"trained", "plain", "few-shot"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["base"]["forms"]) == {"trained", "plain", "few-shot"}
    assert metrics["base"]["knowledge"]["ood"]["facts"] == 6
    assert metrics["gold_log_prob"]["id"]["per_token"]["value"] < 0
    record = json.loads((out / "run.json").read_text())
    assert set(record["models"]) == {"model", "base"}
    assert len(record["options"]["shots"]) == 5

    # Each form of the base is what `eval` of the base says, and `transitions` of the two runs what stands here.
    for form in ("trained", "few-shot"):
        alone = tmp_path / form
        assert run("eval", base_folder, *asked, "--form", form, "--out", alone) == 0
        beside = out / f"base-{form}"
        assert pl.read_parquet(alone / "answers.parquet").equals(pl.read_parquet(beside / "answers.parquet"))
        assert (alone / "metrics.json").read_text() == (beside / "metrics.json").read_text()
        between = tmp_path / f"between-{form}"
        capsys.readouterr()
        assert run("transitions", alone, out, "--out", between, "--show", 2) == 0
        assert {path.name for path in between.iterdir()} == {"transitions.parquet", "metrics.json", "run.json"}
        table = pl.read_parquet(between / "transitions.parquet")
        assert table.equals(moved.filter(form=form).drop("form"))
        assert json.loads((between / "metrics.json").read_text()) == metrics["base"]["forms"][form]
        lines = capsys.readouterr().out.splitlines()
        lost = table.filter(change="lost")["question"].to_list()
        assert [line.split("?")[0] + "?" for line in lines if line.startswith("lost: ")] == [
            f"lost: {question}" for question in lost[:2]
        ]
        assert any("McNemar" in line for line in lines)


def test_what_the_base_cannot_be_asked_is_said(
    base_folder: Path, tmp_path: Path, facts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talker = tiny.nudge(base_folder, tmp_path / "talker")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(talker)
    out = tmp_path / "out"
    command = ["eval", talker, "--base", base_folder, "--facts", facts, "--form", "chat", "--out", out]
    assert run(*command) == 0  # every split is asked, so no fact is left for solved examples
    error = capsys.readouterr().err
    assert "the base model is not shown solved examples" in error
    assert "the base model has no chat template" in error
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"base-plain"}
    assert "knowledge" not in json.loads((out / "metrics.json").read_text())["base"]
    assert set(pl.read_parquet(out / "answers.parquet")["text"]) != {""}


def test_bad_input_is_one_line(
    base_folder: Path, tmp_path: Path, facts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty.jsonl"
    empty.write_text("\n")
    strange = tmp_path / "strange.jsonl"
    strange.write_text('{"question": "Who?", "answers": ["<|end|>"], "id": "ghost"}\n')
    endless = tmp_path / "endless.jsonl"
    endless.write_text(json.dumps({"question": "Who? " * 300, "answers": ["a"]}) + "\n")
    damaged = tiny.checkpoint(tmp_path / "damaged", dtype=torch.float32)
    weights = load_file(damaged / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    table = tmp_path / "table.parquet"
    pl.DataFrame({"id": ["a"]}).write_parquet(table)
    for said, arguments in {
        "no facts in this file": ["eval", base_folder, "--facts", empty],
        "fact 'ghost': the answer '<|end|>' is no token at all": ["eval", base_folder, "--facts", strange],
        "context of 256": ["eval", base_folder, "--facts", endless],
        "logits are": ["eval", damaged, "--facts", facts],
        "no chat template": ["eval", base_folder, "--facts", facts, "--form", "chat"],
        "few-shot prompts take 5": ["eval", base_folder, "--facts", facts, "--form", "few-shot"],
        "--facts F is needed": ["eval", base_folder],
        "--facts F": ["eval", base_folder, "--base", base_folder, "--tasks", "gsm8k"],
        "--tasks-dir has no effect": ["eval", base_folder, "--facts", facts, "--tasks-dir", tmp_path],
        "nowhere": ["eval", base_folder, "--base", tmp_path / "nowhere", "--facts", facts],
        "answers.parquet: no such file": ["transitions", tmp_path, tmp_path],
        "the folder of `knowshift eval` is expected": ["transitions", facts, facts],
        "lacks the columns topic": ["transitions", table, table],
    }.items():
        line = refused(capsys, *arguments, "--out", out)
        assert said in line, line
        assert not out.exists()


def test_library_calls_come_without_torch_until_they_need_it() -> None:
    script = (
        "import sys\nfrom knowshift.measure import evaluate, transitions\nprint('torch' in sys.modules)\n"
        "from knowshift.measure import drift\nimport knowshift.measure\n"
        "print(*(callable(call) for call in (evaluate, transitions, drift, knowshift.measure.drift)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["False", "True", "True", "True", "True"]
