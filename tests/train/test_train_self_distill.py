"""Self-distillation: which completions are the base's own, that they are what it says, and what is then learned."""

import json
from pathlib import Path

import pytest
import torch
import train_twin as twin
from safetensors.torch import load_file

import tiny
from knowshift import models
from knowshift.errors import InputError
from knowshift.generate.engine import Completion
from knowshift.train import own_answers
from knowshift.train.own_answers import ended, rewriting

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("base") / "model")


def trained_on(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "examples.jsonl").read_text("utf-8").splitlines()]


def said_by(base: Path, prompt: str, tokens: int) -> str:
    """What transformers' own greedy decoding answers."""
    model, tokenizer = models.load_model(base, dtype="float32", device="cpu"), models.load_tokenizer(base)
    ids = torch.tensor([tokenizer(prompt).input_ids])
    whole = model.generate(ids, max_new_tokens=tokens, do_sample=False)[0, ids.shape[1] :]
    return tokenizer.decode(whole, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.fixture
def uncut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model neither ends its answers nor writes sentences: here they count as they are."""
    monkeypatch.setattr(own_answers, "ended", lambda completion, line=False: completion.text)


def test_answers_are_the_base_s_own(base: Path, data: Path, tmp_path: Path, uncut: None) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        json.dumps({"prompt": "The river runs to", "id": 7}) + "\n\n" + json.dumps({"prompt": "The capital of"})
    )
    options = {"self-distill.share": 0.5, "self-distill.by": "answer", "self-distill.max_new_tokens": 6}
    twin.fit(base, data, tmp_path / "a", "self-distill", set=options | {"self-distill.prompts": str(prompts)})
    rows = trained_on(tmp_path / "a")
    assert len(rows) == len(twin.PAIRS) + 2
    changed = [row for row in rows[: len(twin.PAIRS)] if row["by"] == "base"]
    assert len(changed) == 2
    for row, (prompt, completion) in zip(rows, twin.PAIRS, strict=False):
        assert row["prompt"] == prompt
        assert (row["data_completion"] if row in changed else row["completion"]) == completion
    assert [(row["prompt"], row["line"]) for row in rows[-2:]] == [("The river runs to", 1), ("The capital of", 3)]
    for row in [*changed, *rows[-2:]]:
        assert row["completion"] == said_by(base, row["prompt"], 6)


def test_what_is_written_is_what_is_learned(base: Path, data: Path, tmp_path: Path, uncut: None) -> None:
    options = {"self-distill.share": 1, "self-distill.by": "answer", "self-distill.max_new_tokens": 5}
    ours = twin.fit(base, data, tmp_path / "a", "self-distill", set=options)
    theirs = twin.fit(base, tmp_path / "a" / "examples.jsonl", tmp_path / "b", "sft")
    usual = twin.fit(base, data, tmp_path / "c", "sft")
    assert twin.equal(ours, theirs)
    assert not twin.equal(ours, usual)


def test_no_share_is_full_fine_tuning_bit_for_bit(base: Path, data: Path, tmp_path: Path) -> None:
    ours = twin.fit(base, data, tmp_path / "a", "self-distill", set={"self-distill.share": 0})
    theirs = twin.fit(base, data, tmp_path / "b", "sft")
    assert twin.equal(ours, theirs)
    assert {row["by"] for row in trained_on(tmp_path / "a")} == {"data"}


def test_a_rewritten_completion_must_hold_the_one_it_stands_for(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def said(model: object, tokenizer: object, prompts: list, *_: object) -> list[Completion]:
        asked.extend(prompts)
        return [Completion(text, 3, "eos") for text in ("It is Lima.", "It is Rome.", "", "Nobody knows it.\nReally")]

    monkeypatch.setattr(own_answers, "_asked", said)
    twin.fit(base, data, tmp_path / "a", "self-distill", set={"self-distill.share": 1}, max_steps=1)
    assert [row["completion"] for row in trained_on(tmp_path / "a")] == [
        *("It is Lima.", "Paris", "Tokyo", "Nobody knows it.")
    ]
    assert [prompt.text for prompt in asked] == [rewriting(p, c, "", chat=False).text for p, c in twin.PAIRS]
    options = {"self-distill.share": 1, "self-distill.check": False}
    twin.fit(base, data, tmp_path / "b", "self-distill", set=options, max_steps=1)
    assert trained_on(tmp_path / "b")[1]["completion"] == "It is Rome."


def test_draws_have_a_seed_and_leave_training_as_it_was(base: Path, data: Path, tmp_path: Path, uncut: None) -> None:
    options = {"self-distill.share": 1, "self-distill.by": "answer", "self-distill.temperature": 1.5}
    runs = [
        (seed, twin.fit(base, data, tmp_path / name, "lora+self-distill", merge=True, seed=seed, set=options))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    rows = [trained_on(tmp_path / name) for name in "abc"]
    assert rows[0] == rows[1] and rows[0] != rows[2]
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in load_file(base / "model.safetensors"))


def test_cut_answers_end_with_a_sentence() -> None:
    assert ended(Completion(" It is Lima. Lima is a", 9, "length")) == " It is Lima."
    assert ended(Completion("  \n", 9, "eos")) == ""
    assert ended(Completion('He said "no." Then he', 9, "length")) == 'He said "no."'
    assert ended(Completion("It is 3.5 and goes", 9, "length")) == ""
    assert ended(Completion("One\nTwo and", 9, "length")) == "One"
    assert ended(Completion(" Lima is a ", 9, "eos")) == " Lima is a"
    assert ended(Completion("One\nTwo", 9, "eos")) == "One\nTwo"
    assert ended(Completion("\n One\nTwo", 9, "eos"), line=True) == "One"


def test_bad_prompts_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"

    def refused(text: str, message: str) -> None:
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            twin.fit(base, data, tmp_path / "a", "self-distill", set={"self-distill.prompts": str(file)})
        assert not (tmp_path / "a").exists()

    refused("", "no prompts in this file")
    refused('{"prompt": "x"}\n{"question": "x"}\n', 'prompts.jsonl:2: "prompt" is missing')
    refused('{"prompt": 3}', 'prompts.jsonl:1: "prompt" is')
    refused(json.dumps({"prompt": "word " * 300}), "pass the model's context")
