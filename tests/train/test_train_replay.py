"""Other data mixed in: its share, which lines, and that all of a text is learned."""

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from commands import refused, run
from knowshift.errors import InputError
from knowshift.train.data import Pair, read_pairs, tokenize
from knowshift.train.examples import drawn

POOL = [Pair("", f"text {number}", number) for number in range(2000)]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@given(st.integers(1, 400), st.floats(0.01, 0.8), st.floats(0.01, 0.8), st.integers(0, 5))
def test_a_larger_share_holds_a_smaller_one_s(task: int, one: float, other: float, seed: int) -> None:
    small, large = (drawn(POOL, task, share, seed, Path("p")) for share in sorted((one, other)))
    assert large[: len(small)] == small
    assert len({pair.line for pair in large}) == len(large)
    assert abs(len(large) - max(one, other) * (task + len(large))) <= 1


def test_another_seed_draws_others_and_too_few_are_said() -> None:
    assert drawn(POOL, 50, 0.5, 1, Path("p")) != drawn(POOL, 50, 0.5, 2, Path("p"))
    with pytest.raises(InputError, match=r"--replay-share 0\.5: 50 examples beside 50 are needed, p holds 3"):
        drawn(POOL[:3], 50, 0.5, 1, Path("p"))


def test_all_of_a_text_is_learned_with_its_end(tmp_path: Path) -> None:
    words = tiny.tokenizer()
    path = write(tmp_path / "r.jsonl", [{"text": "The river runs."}, {"prompt": "Q", "completion": "A"}])
    (text, pair), _ = tokenize(path, read_pairs(path, text=True), words, 99)
    assert text.labels == text.ids == [*words("The river runs.").input_ids, words.eos_token_id]
    assert pair.labels[0] == -100
    with pytest.raises(InputError, match=r'r\.jsonl:1: "prompt" is missing'):
        read_pairs(path)


def test_replay_is_trained_on_and_recorded(base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = write(tmp_path / "d.jsonl", [{"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(12)])
    other = write(tmp_path / "r.jsonl", [{"text": f"The sea number {i}"} for i in range(9)])
    command = ("train", base_folder, "--data", data, "--fp32", "--batch-size", "4", "--out")
    assert run(*command, tmp_path / "a", "--replay", other, "--replay-share", "0.4") == 0
    assert run(*command, tmp_path / "b") == 0
    with_it, without = (pl.read_parquet(tmp_path / name / "train_log.parquet") for name in ("a", "b"))
    assert (with_it.height, without.height) == (5, 3)  # 12 and 8 more in fours, and 12
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["replay"]["examples"] == 8 and record["replay"]["of"] == 9 and record["replay"]["share"] == 0.4
    card = (tmp_path / "a" / "README.md").read_text()
    assert "with 8 examples of other data mixed in" in card and record["replay"]["sha256"] in card
    assert "replay" not in json.loads((tmp_path / "b" / "run.json").read_text())
    assert "no effect without --replay" in refused(capsys, *command, tmp_path / "c", "--replay-share", "0.2")
    assert "--replay-share" in refused(capsys, *command, tmp_path / "c", "--replay", other, "--replay-share", "1")
    other.write_text('{"text": 3}\n')
    assert 'r.jsonl:1: "text" must be text' in refused(capsys, *command, tmp_path / "c", "--replay", other)
