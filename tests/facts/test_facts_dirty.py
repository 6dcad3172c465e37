"""Dirty data: it is read right, or refused in one line that names the place; never anything else."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.facts.columns import clean, says_nothing
from knowshift.facts.fact import Fact
from knowshift.facts.sources import read_facts
from knowshift.facts.templates import templates_for

LONG = "x y" * 4000


def export(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, list[Fact]]:
    """Through the command line: status, what it says on standard error, and the facts it wrote, read again."""
    out = path.with_name("out.jsonl")
    out.unlink(missing_ok=True)
    capsys.readouterr()
    status = main(["facts", "export", str(path), "--out", str(out)])
    return status, capsys.readouterr().err, read_facts(str(out)) if out.exists() else []


def one(tmp_path: Path, **row: object) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"question": "q?", "answer": "a"} | row) + "\n")
    return path


# Every text here is somebody's subject or answer, and must come out as it went in.
TEXTS = [
    "{subject}",
    "{question} {0} {} {x!r}",
    "%s %(a)d $& \\1",
    ".*+?^$()[]|\\d",
    "e\u0301tude",  # a letter and a combining accent
    "\u00e9tude",
    "שלום \u200fעולם",  # a direction mark in the middle
    "a\u200bb",
    "👩\u200d🔬",
    "one\ntwo\ttab",
    "'quoted\", and, comma",
    "\u2028 is a line to some".strip(),
    "$",
    "C++",
    "-0",
    "NaN",
    "null",
    LONG,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "json"])
def test_texts_come_out_as_they_went_in(
    text: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"question": f"Who is {text}?", "answer": text, "subject": text, "topic": "nothing known"}
    path = tmp_path / f"facts.{kind}"
    match kind:
        case "jsonl":
            path.write_text(json.dumps(row))
        case "json":
            path.write_text(json.dumps([row], ensure_ascii=False), "utf-8")
        case _:
            buffer = io.StringIO(newline="")
            csv.writer(buffer, delimiter="," if kind == "csv" else "\t").writerows([list(row), list(row.values())])
            path.write_text(buffer.getvalue(), "utf-8", newline="")
    status, error, facts = export(path, capsys)
    assert (status, error) == (0, "")
    assert [(fact.question, fact.answers, fact.subject) for fact in facts] == [(f"Who is {text}?", (text,), text)]
    assert all(f"Who is {text}?" in prompt for prompt in templates_for(facts[0]))


def test_what_is_invisible_at_the_edges_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = one(tmp_path, question="\ufeffq?\u200b ", answer=" \u200f\u2068Oslo\u2069\u200e\u00a0", subject="\u200b")
    status, _, (fact,) = export(path, capsys)
    assert (status, fact.question, fact.answers, fact.subject) == (0, "q?", ("Oslo",), "")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"answer": "\0a"}, '"answer" holds a NUL'),
        ({"question": "\0"}, '"question" holds a NUL'),
        ({"subject": "a\0"}, '"subject" holds a NUL'),
        ({"answer": "\ud800"}, '"answer" holds half of a surrogate pair'),
        ({"id": "\udfff"}, '"id" holds half of a surrogate pair'),
        ({"topic": "a\ud83d"}, '"topic" holds half'),
        ({"answer": '["a", "\\ud800"]'}, '"answer" holds half'),
        ({"answer": "  \u200b "}, '"answer" holds no answer'),
        ({"answer": "..."}, "punctuation alone"),
        ({"answer": "—\u2026"}, "punctuation alone"),
        ({"answers": ["a", "!"], "answer": None}, "punctuation alone"),
        ({"question": " \ufeff"}, '"question" is missing or empty'),
        ({"question": float("nan")}, '"question" must be text, found float'),
        ({"answer": float("inf")}, '"answer" must be a list of texts'),
        ({"answer": 10**400}, '"answer" must be a list of texts'),
        ({"answer": True}, '"answer" must be a list of texts'),
        ({"id": 1.5}, '"id" must be text, found float'),
        ({"id": True}, '"id" must be text, found bool'),
        ({"answers": [["a"]]}, '"answers" must be a list of texts'),
        ({"domain": "OOD"}, '"domain" must be "id" or "ood"'),
        ({"\ud800": 1, "answer": None}, '"answers" must be'),
    ],
)
def test_what_cannot_be_a_fact_is_named(
    row: dict, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = one(tmp_path, **row)
    status, error, facts = export(path, capsys)
    assert (status, facts) == (2, [])
    assert error.count("\n") == 1
    assert len(error) < 600
    assert f"{path}:1: " in error
    assert complaint in error


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ('{"question": "q", "answer": "a"}'.encode("utf-16"), "this file is UTF-16"),
        ('{"question": "q", "answer": "a"}'.encode("utf-16-le"), ":1: not valid JSON"),
        (b'\xef\xbb\xbf{"question": "q", "answer": "a"}\r\n\xef\xbb\xbf{}', ":2: not valid JSON"),
        (b'{"question": "q", "answer": "a", "x": ' + b"9" * 5000 + b"}", ":1: not valid JSON"),
        (b'{"question": "q", "answer": "a", "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", ":1: not valid JSON"),
        (b'{"question": "q", "answer": "a"} {"question": "p", "answer": "a"}', ":1: not valid JSON"),
        (b'\n\n{"question": "q", "answer": "a"', ":3: not valid JSON"),
        (b'{"question": "q", "answer": "a\x01"', ":1: not valid JSON"),
        (b"\0" * 100, ":1: not valid JSON"),
        (b" \n\t\n\r\n", "no facts"),
        (b"", "no facts"),
        (
            b'{"id": "i", "question": "q", "answer": "a"}\n\n{"id": "i", "question": "p", "answer": "b"}',
            "line 1 already",
        ),
        (b'{"question": "q", "answer": "a"}\n' * 2, ":2: no id, and the same question is asked on line 1 already"),
    ],
    ids=range(13),
)
def test_files_that_are_refused(raw: bytes, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(raw)
    status, error, facts = export(path, capsys)
    assert (status, facts) == (2, [])
    assert error.count("\n") == 1
    assert complaint in error


def test_files_that_are_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "facts.jsonl"
    fine = b'{"question": "q", "answer": "a", "score": NaN, "size": -Infinity, "n": 1e999, "deep": [[[[{}]]]]}'
    path.write_bytes(b"\xef\xbb\xbf\r\n" + fine + b"\r\n\r\n \t\r\n" + fine.replace(b'"q"', b'"p"'))
    status, error, facts = export(path, capsys)
    assert (status, error, [fact.question for fact in facts]) == (0, "", ["q", "p"])


anything = st.text(st.characters(codec="utf-8"), max_size=12)
usable = anything.filter(lambda text: "\0" not in text).map(lambda text: clean(text, "", "")).filter(
    lambda text: not says_nothing(text) and not (text.startswith("[") and text.endswith("]"))
)  # fmt: skip


@given(
    st.lists(st.tuples(usable, usable), min_size=1, max_size=6, unique_by=lambda row: row[0]), st.sampled_from(",\t")
)
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / ("facts.csv" if delimiter == "," else "facts.tsv")
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, delimiter=delimiter).writerows([("question", "answer"), *rows])
    assert [(fact.question, fact.answers) for fact in read_facts(str(path))] == [(q, (a,)) for q, a in rows]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["question", "answers", "answer", "obj", "possible_answers", "id", "topic", "split", "domain"])


@settings(max_examples=200)
@given(st.lists(st.dictionaries(names | anything, values, max_size=5), max_size=3), st.sampled_from(["json", "jsonl"]))
def test_any_json_is_facts_or_one_complaint(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict], kind: str
) -> None:
    path = tmp_path_factory.mktemp("json") / f"facts.{kind}"
    path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    check(path)


@settings(max_examples=200)
@given(st.binary(max_size=80) | anything.map(str.encode), st.sampled_from(["json", "jsonl", "csv", "tsv"]))
def test_any_bytes_are_facts_or_one_complaint(tmp_path_factory: pytest.TempPathFactory, raw: bytes, kind: str) -> None:
    path = tmp_path_factory.mktemp("raw") / f"facts.{kind}"
    head = b"" if kind.startswith("json") else b"question,answer\n".replace(b",", b"," if kind == "csv" else b"\t")
    path.write_bytes(head + raw)
    check(path)


def check(path: Path) -> None:
    """Facts that can be written and have what a fact needs, or an error that begins with the file's name."""
    try:
        facts = read_facts(str(path))
    except InputError as error:
        assert str(error).startswith(str(path))
        return
    assert facts
    assert len({fact.id for fact in facts}) == len(facts)
    for fact in facts:
        fact.to_json().encode()
        assert fact.id
        assert fact.question.strip()
        assert fact.answers
        assert not any(says_nothing(answer) for answer in fact.answers)
