"""Tasks of lm-evaluation-harness on local files and a real tiny checkpoint."""

import importlib.util
import json
from pathlib import Path

import polars as pl
import pytest
import torch

import tiny
from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.measure import tasks
from knowshift.models import load_model, load_tokenizer

INSTALLED = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not INSTALLED, reason="lm-evaluation-harness is not installed")

CHOICES = ["Paris", "Tokyo", "Lima", "the sea"]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {kind}
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
{rest}
"""
CHOICE = f"doc_to_choice: {json.dumps(CHOICES)}\nmetric_list: [{{metric: acc}}]"
SAY = 'generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}\nmetric_list: [{metric: exact_match}]'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tasks over one local file; what the harness caches stays with the test."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    if importlib.util.find_spec("datasets"):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    place = tmp_path / "tasks"
    place.mkdir()
    data = tmp_path / "items.jsonl"
    rows = [{"question": f"{place} of {number}?", "answer": place} for number in range(3) for place in CHOICES]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind, rest in (("tiny_choice", "multiple_choice", CHOICE), ("tiny_say", "generate_until", SAY)):
        (place / f"{name}.yaml").write_text(TASK.format(name=name, data=data, kind=kind, rest=rest))
    (place / "tiny_broken.yaml").write_text(
        TASK.format(name="tiny_broken", data="none.jsonl", kind="generate_until", rest=SAY)
    )
    return place


@torch.inference_mode()
def slow_accuracy(checkpoint: Path, rows: list[dict[str, str]]) -> float:
    """The share of items whose right choice has the largest summed log-probability after the prompt."""
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    right = 0
    for row in rows:
        prompt = f"Question: {row['question']}\nAnswer:"
        scores = []
        for choice in CHOICES:
            ids, start = tokenizer(f"{prompt} {choice}").input_ids, len(tokenizer(prompt).input_ids)
            found = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
            scores.append(sum(found[place - 1, ids[place]].item() for place in range(start, len(ids))))
        right += CHOICES[scores.index(max(scores))] == row["answer"]
    return right / len(rows)


@needs_harness
def test_figures_of_a_local_task(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny.checkpoint(tmp_path / "model", dtype=torch.float32, seed=5)
    out = tmp_path / "out"
    capsys.readouterr()
    command = ["eval", str(checkpoint), "--tasks-dir", str(folder), "--out", str(out), "--tasks"]
    assert main([*command, "tiny_choice,tiny_say"]) == 0
    shown = capsys.readouterr()
    assert "tiny_choice: acc " in shown.out
    assert not shown.err
    assert {path.name for path in out.iterdir()} == {"tasks.parquet", "metrics.json", "run.json"}
    table = pl.read_parquet(out / "tasks.parquet")
    assert table.columns == ["task", "metric", "filter", "value", "stderr", "n"]
    assert table["task"].to_list() == ["tiny_choice", "tiny_say"]
    assert table["n"].to_list() == [12, 12]
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert table["value"][0] == pytest.approx(slow_accuracy(checkpoint, rows))
    assert 0 < table["value"][0] < 1
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["tasks"]["tiny_choice"]["acc"] == {"value": table["value"][0], "stderr": table["stderr"][0], "n": 12}
    assert main([*command, "tiny_choice", "--limit", "4"]) == 0
    assert pl.read_parquet(out / "tasks.parquet")["n"].to_list() == [4]
    for name, said in (("nonesuch", "no task 'nonesuch'"), ("tiny_broken", "--tasks tiny_broken: ")):
        capsys.readouterr()
        assert main([*command[:-2], str(tmp_path / name), "--tasks", name]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert not (tmp_path / name).exists()


def test_what_goes_wrong_before_anything_is_loaded(
    tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    with pytest.raises(InputError, match="--tasks: names"):
        tasks.Harness(["a", ""])
    with pytest.raises(InputError, match=r"--tasks-dir .*no such folder"):
        tasks.Harness(["a"], tmp_path / "nowhere")
    monkeypatch.setattr(tasks, "import_module", absent)
    assert main(["eval", str(base_folder), "--tasks", "gsm8k", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'knowshift[lm-eval]'" in capsys.readouterr().err
