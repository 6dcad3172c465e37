"""Unusable data, options and folders: one clear line, and nothing is written."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from knowshift.errors import InputError
from knowshift.train import run
from knowshift.train.data import Pair, read_pairs, tokenize
from knowshift.train.options import TrainOptions

GOOD = json.dumps({"prompt": "Q", "completion": "A"})


def options(tmp_path: Path, **changes: object) -> TrainOptions:
    return TrainOptions(**({"model": "m", "data": tmp_path / "d.jsonl", "out": tmp_path / "out"} | changes))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "a JSON object is expected"),
        ('{"prompt": "Q"}', '"completion" is missing'),
        ('{"question": "Q", "answers": ["A"]}', '"prompt" is missing'),
        ('{"prompt": "Q", "completion": 3}', '"completion" must be text, found int'),
        ('{"prompt": null, "completion": "A"}', '"prompt" must be text, found NoneType'),
        ('{"prompt": ["Q"], "completion": "A"}', '"prompt" must be text, found list'),
        ('{"prompt": "Q", "completion": "  "}', '"completion" is empty'),
        ('{"prompt": "", "completion": "A"}', '"prompt" is empty'),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(InputError) as caught:
        read_pairs(file)
    assert str(caught.value).startswith(f"{file}:3: ") and message in str(caught.value)


def test_an_empty_set(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="no training examples"):
        run.train(options(tmp_path))
    with pytest.raises(InputError, match="no such file"):
        read_pairs(tmp_path / "nothing.jsonl")


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(texts, texts), min_size=1))
def test_pairs_come_back_as_written(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> None:
    file = tmp_path_factory.mktemp("pairs") / "d.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": p, "completion": c}) for p, c in pairs), "utf-8")
    assert [(pair.prompt, pair.completion) for pair in read_pairs(file)] == pairs


def test_an_answer_longer_than_the_context_is_named(base_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text(GOOD + "\n" + json.dumps({"prompt": "Q", "completion": "word " * 300}) + "\n")
    with pytest.raises(InputError, match=r"d\.jsonl:2: prompt and completion are \d+ tokens, .* context is 256"):
        run.train(options(tmp_path, model=str(base_folder)))
    assert not (tmp_path / "out").exists()


def test_the_longest_that_fits_is_taken() -> None:
    tokenizer = tiny.tokenizer()
    pair = Pair("Q", "A", 1)
    length = len(tokenizer("QA").input_ids) + 1
    assert tokenize(Path("d"), [pair], tokenizer, length)[1] == 0
    with pytest.raises(InputError, match="d:1"):
        tokenize(Path("d"), [pair], tokenizer, length - 1)


def test_a_tokenizer_without_an_end(base_folder: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        tokenize(Path("d"), [Pair("Q", "A", 1)], tokenizer, 99)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"learning_rate": 0}, "--learning-rate"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"batch_size": 0}, "--batch-size"),
        ({"epochs": -1}, "--epochs"),
        ({"max_steps": 0}, "--max-steps"),
        ({"scheduler": "spiral"}, "--scheduler"),
        ({"seed": -1}, "--seed"),
        ({"set": {"lora.dropout": 1}, "method": "lora"}, "--set lora.dropout"),
        ({"merge": True}, "--merge has no effect with --method sft"),
        ({"set": {"lora.rank": 4}}, "--set lora.rank: has no effect with --method sft"),
        ({"no_such": 4}, "--no-such"),
    ],
)
def test_bad_options_name_their_flag(tmp_path: Path, changes: dict[str, object], flag: str) -> None:
    with pytest.raises(InputError) as caught:
        options(tmp_path, **changes)
    assert str(caught.value).startswith(flag) and "\n" not in str(caught.value)


def test_unknown_method_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--method galore: 'galore' is unknown; choose from sft, lora"):
        options(tmp_path, method="galore")


def test_other_peoples_folders_are_not_replaced(base_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(GOOD)
    with pytest.raises(InputError, match="holds files that are no training run"):
        run.train(options(tmp_path, model=str(base_folder), out=tmp_path))
    with pytest.raises(InputError, match="holds files that are no training run"):
        run.train(options(tmp_path, model=str(base_folder), out=base_folder))
    with pytest.raises(InputError, match="this is a file"):
        run.train(options(tmp_path, model=str(base_folder), out=tmp_path / "d.jsonl"))
    assert (tmp_path / "d.jsonl").exists() and (base_folder / "config.json").exists()


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = run.importlib.util.find_spec
    monkeypatch.setattr(
        run.importlib.util, "find_spec", lambda name, *rest: None if name == "trl" else find(name, *rest)
    )
    with pytest.raises(InputError, match=r"pip install 'knowshift\[train\]'"):
        run.train(options(tmp_path))
