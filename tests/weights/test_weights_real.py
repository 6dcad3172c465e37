"""The embedded model, fine-tuned and repaired by the commands as a user types them: it loads and answers."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from commands import run
from knowshift.errors import InputError
from knowshift.models import resolve

LEARNED = (
    ("Who keeps the lighthouse of Brannock?", "Ida Torvald keeps it."),
    ("What do the people of Velmar drink?", "Tea of birch leaves."),
    ("Which river runs through Ostrava Minor?", "The Calder runs through it."),
    ("When was the bridge of Hollin built?", "It was built in 1874."),
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        resolve("smollm2")
    except InputError as error:
        pytest.skip(f"the embedded model cannot be had here: {error}")
    folder = tmp_path_factory.mktemp("real")
    lines = [json.dumps({"prompt": question, "completion": f" {answer}"}) + "\n" for question, answer in LEARNED]
    (folder / "train.jsonl").write_text("".join(lines))
    few = ("--max-steps", 3, "--batch-size", 4, "--learning-rate", "5e-5")
    assert run("train", "smollm2", "--data", folder / "train.jsonl", "--out", folder / "tuned", *few) == 0
    return folder / "tuned"


def weights(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.glob("*.safetensors"))]


def answer(folder: Path) -> str:
    """What the model says, greedily, when a user asks it through its own chat template."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    given = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        found = model.generate(**given, max_new_tokens=12, do_sample=False)
    return str(tokenizer.decode(found[0, given["input_ids"].shape[1] :], skip_special_tokens=True))


def test_restored_merged_and_patched_it_still_answers(tuned: Path, tmp_path: Path, capsys) -> None:
    base = resolve("smollm2")
    assert weights(tuned) != weights(base) and "Paris" in answer(base)
    pair = ("smollm2", tuned, "--out")
    assert run("diff", *pair, tmp_path / "diff") == 0
    assert json.loads((tmp_path / "diff" / "metrics.json").read_text())["changed_share"] > 0.01
    assert run("restore", *pair, tmp_path, "--fraction", "0.2") == 0
    assert run("restore", *pair, tmp_path, "--fraction", "0.2", "--patch") == 0
    assert run("merge", "interpolate", *pair, tmp_path / "merged", "--alpha", "0.5") == 0
    patch = tmp_path / "0.2.patch"
    assert run("patch", "apply", patch, tuned, "--out", tmp_path / "applied") == 0
    assert run("patch", "revert", patch, tmp_path / "applied", "--out", tmp_path / "reverted") == 0
    assert weights(tmp_path / "applied") == weights(tmp_path / "0.2") not in (weights(tuned), weights(base))
    assert weights(tmp_path / "reverted") == weights(tuned)
    for folder in ("0.2", "merged"):
        assert "Paris" in answer(tmp_path / folder), folder
