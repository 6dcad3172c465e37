"""Facts out of other people's tables: any format and column names say the same facts, or one line what is wrong."""

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.sources import read_facts

# Rows as PopQA has them, with columns that mean nothing here.
POPQA = [
    {
        "id": 4222362,
        "subj": "George Rankin",
        "prop": "occupation",
        "obj": "politician",
        "subj_id": 1850297,
        "s_aliases": '["George James Rankin"]',
        "question": "What is George Rankin's occupation?",
        "possible_answers": '["politician", "political leader", "pol\\u00edtico, pol."]',
    },
    {
        "id": 5,
        "subj": "Ünal; the |1st|",
        "prop": "place of birth",
        "obj": "İzmir",
        "subj_id": 2,
        "s_aliases": "[]",
        "question": 'In what city was "Ünal; the |1st|" born?',
        "possible_answers": "[]",
    },
]
EXPECTED = [
    Fact(
        "4222362",
        "What is George Rankin's occupation?",
        ("politician", "political leader", "político, pol."),
        "occupation",
        "George Rankin",
    ),
    Fact("5", 'In what city was "Ünal; the |1st|" born?', ("İzmir",), "place of birth", "Ünal; the |1st|"),
]


def separated(path: Path, rows: list[dict], delimiter: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write(folder: Path, kind: str, rows: list[dict]) -> Path:
    path = folder / f"facts.{kind}"
    match kind.casefold():
        case "csv":
            separated(path, rows, ",")
        case "tsv":
            separated(path, rows, "\t")
        case "json":
            path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), "utf-8")
        case "parquet":
            pl.DataFrame(rows).write_parquet(path)
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


KINDS = ("csv", "tsv", "json", "parquet", "jsonl", "CSV", "txt")


@pytest.mark.parametrize("kind", KINDS)
def test_popqa_in_any_format(kind: str, tmp_path: Path) -> None:
    assert read_facts(str(write(tmp_path, kind, POPQA))) == EXPECTED


def test_popqa_as_a_dataset(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "p@p:1" / "qa"
    folder.mkdir(parents=True)
    separated(folder / "test.csv", POPQA, ",")
    with_split = [Fact(fact.id, fact.question, fact.answers, fact.topic, fact.subject, "test") for fact in EXPECTED]
    for name in (f"hf:{folder}", f"hf:{folder}/", f"hf:{folder}@test"):
        assert read_facts(name) == with_split


def test_a_saved_dataset_and_its_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"question": ["one?", "two?"], "answer": [{"value": "1", "aliases": ["I"]}, {"value": "2", "aliases": []}]}
    table = datasets.Dataset.from_dict(rows)
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "qa")
    table.save_to_disk(tmp_path / "bare")
    monkeypatch.chdir(tmp_path)
    facts = read_facts("hf:./qa")
    assert [(fact.question, fact.answers, fact.split) for fact in facts] == [
        ("one?", ("1", "I"), "train"),
        ("two?", ("2",), "train"),
        ("two?", ("2",), "test"),
    ]
    assert len({fact.id for fact in facts}) == 3
    assert read_facts("hf:./qa@test") == facts[2:] == read_facts("hf:./qa", split="test")
    assert len(read_facts("hf:./qa", drop_overlaps=True)) == 2
    assert [fact.split for fact in read_facts("hf:./bare")] == ["", ""]
    for source, complaint in {
        "hf:./qa@dev": r"hf:\./qa: no split 'dev' \(splits here: train, test\)",
        "hf:./none": "no such folder",
        "hf:": "a dataset is named as",
        "hf:@test": "a dataset is named as",
    }.items():
        with pytest.raises(InputError, match=complaint):
            read_facts(source)


def test_a_dataset_without_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "text")
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    for name, said in {"text": "no column of facts here", "empty": "cannot be loaded"}.items():
        assert main(["facts", "export", f"hf:{tmp_path / name}", "--out", str(tmp_path / "out.jsonl")]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_datasets_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match=r"datasets is needed here .* pip install"):
        read_facts("hf:popqa")


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        ({"question": "q", "answer": "a;b|c, d"}, ("a;b|c, d",)),  # separators are not guessed
        ({"prompt": "q", "answers": ["a", "b", "a"]}, ("a", "b")),
        ({"query": "q", "answers": '["a", "b"]'}, ("a", "b")),
        ({"Question": "q", " Answer ": "a"}, ("a",)),
        ({"question": "q", "answer": "[sic]"}, ("[sic]",)),
        ({"question": "q", "answers": {"text": ["a", "b"], "answer_start": [3, 4]}}, ("a", "b")),
        ({"question": "q", "answer": {"value": "a", "aliases": ["b", "a"], "normalized_aliases": ["c"]}}, ("a", "b")),
        ({"question": "q", "obj": "a", "possible_answers": '["b"]'}, ("a", "b")),
        ({"question": "q", "answers": None, "answer": "a"}, ("a",)),
        ({"question": "q", "answer": "a", "A": 1, "a": 2}, ("a",)),  # twins that mean nothing here
    ],
)
def test_column_names_and_kinds_of_answers(row: dict, answers: tuple[str, ...], tmp_path: Path) -> None:
    (fact,) = read_facts(str(write(tmp_path, "jsonl", [row])))
    assert (fact.question, fact.answers) == ("q", answers)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("f.csv", "question,answer\nq,a\nq2\n", r"f\.csv:3: 1 fields here, 2 in the first line"),
        ("f.csv", 'question,answer\nq,"a\nq2,b\n', r"f\.csv:2: not valid csv .*quote left open"),
        ("f.tsv", 'question\tanswer\n"q" is\ta\n', r"f\.tsv:2: not valid tsv"),
        ("f.csv", 'question,answer\n"q\nq",a\n\n"q3",\n', r'f\.csv:5: "answers" must be'),
        ("f.csv", "question,question\nq,a\n", r"f\.csv:1: the column 'question' stands twice"),
        ("f.csv", "q,a\n", r"no facts in this file"),
        ("f.csv", "Oslo?,Norway\nRome?,Italy\n", r'f\.csv:2: "question" is missing or empty .*Oslo'),
        ("f.csv", b"question,answer\nq,\xff\n", r"f\.csv:2: not valid UTF-8"),
        ("f.csv", "question,answer\nq,a\nq,b\n", r"f\.csv:3: no id, and the same question is asked on line 2"),
        ("f.json", '[{"question": "q"\n,]', r"f\.json:2: not valid JSON"),
        ("f.json", '[{"question": "q", "answer": "a"}, 3]', r"f\.json\[1\]: a JSON object is expected, found int"),
        ("f.json", "[]", "no facts in this file"),
        ("f.json", "[" * 100_000, "not valid JSON"),
        ("f.jsonl", '{"question": "q", "answers": "[\'a\']"}', r'f\.jsonl:1: "answers" looks like a list but is not'),
        ("f.jsonl", '{"question": "q", "answers": "[1, 2]"}', r'f\.jsonl:1: "answers" must be a list of texts'),
        ("f.jsonl", '{"question": "q", "answers": {"start": 1}}', r'f\.jsonl:1: "answers" must be a list of texts'),
        ("f.jsonl", '{"question": "q", "Question": "q", "answer": "a"}', r'f\.jsonl:1: the column "question" is here'),
        ("f.parquet", "PAR1 no table", r"f\.parquet: not a readable Parquet file"),
        ("f.parquet", "", r"f\.parquet: not a readable Parquet file"),
    ],
)
def test_what_is_wrong_is_one_line(
    name: str, content: str | bytes, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=complaint):
        read_facts(str(path))
    assert main(["facts", "export", str(path), "--out", str(tmp_path / "out.jsonl")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("knowshift: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_cut_parquet_file(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", POPQA)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_facts(str(path))
    pl.DataFrame({"text": ["a"]}).write_parquet(path)
    with pytest.raises(InputError, match="no column of facts here"):
        read_facts(str(path))
    pl.DataFrame({"question": ["q", None], "answer": ["a", "b"]}).write_parquet(path)
    with pytest.raises(InputError, match=r'facts\.parquet\[1\]: "question" is missing'):
        read_facts(str(path))


def test_splits_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"q{index}", "answer": "a", "split": split} for index in (1, 2) for split in ("train", "test")]
    path, out = write(tmp_path, "csv", rows), tmp_path / "out.jsonl"
    assert main(["facts", "export", str(path), "--split", "test", "--out", str(out)]) == 0
    assert "2 facts of train are asked in test too (kept" in capsys.readouterr().err
    assert read_facts(str(out)) == read_facts(str(path), split="test")
    assert main(["facts", "export", str(path), "--split", "train", "--drop-overlaps", "--out", str(out)]) == 2
    assert "no facts in split 'train' (splits here: test)" in capsys.readouterr().err
    assert main(["facts", "export", str(path), "--split", "dev", "--out", str(out)]) == 2
    assert "no facts in split 'dev' (splits here: test, train)" in capsys.readouterr().err
