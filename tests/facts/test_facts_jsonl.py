"""Reading and writing facts: what is right comes back, what is wrong is named by line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowshift.errors import InputError
from knowshift.facts.columns import clean, says_nothing
from knowshift.facts.fact import Fact, read_jsonl, write_jsonl
from knowshift.facts.sources import read_facts

words = (
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1)
    .map(lambda text: clean(text, "here", "question"))
    .filter(lambda text: not says_nothing(text))
)


def file(tmp_path: Path, *lines: str | bytes) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


GOOD = json.dumps({"question": "Where is Oslo?", "answer": "Norway"})


def test_the_smallest_fact(tmp_path: Path) -> None:
    (fact,) = read_jsonl(file(tmp_path, GOOD))
    assert (fact.question, fact.answers, fact.domain, fact.topic) == ("Where is Oslo?", ("Norway",), "id", "")
    assert fact.id == read_jsonl(file(tmp_path, "", GOOD, ""))[0].id  # the id comes from the content


@given(st.lists(st.tuples(words, st.lists(words, min_size=1, unique=True), words), min_size=1, max_size=5))
def test_facts_survive_a_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = tmp_path_factory.mktemp("round") / "facts.jsonl"
    facts = [
        Fact(id=str(index), question=question, answers=tuple(answers), subject=subject)
        for index, (question, answers, subject) in enumerate(rows)
    ]
    write_jsonl(path, (fact.to_json() for fact in facts))
    assert read_jsonl(path) == facts


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = file(
        tmp_path, b"\xef\xbb\xbf" + GOOD.encode() + b"\r", b"\r", b'{"question": "q", "answers": ["a", "a", " "]}\r'
    )
    assert [fact.answers for fact in read_jsonl(path)] == [("Norway",), ("a",)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{not json", r":2: not valid JSON"),
        ("[1, 2]", r":2: a JSON object is expected, found list"),
        ('{"answers": ["a"]}', r':2: "question" is missing'),
        ('{"question": "q"}', r':2: "answers" must be'),
        ('{"question": "q", "answers": []}', r':2: "answers" holds no answer'),
        ('{"question": "q", "answers": [1]}', r':2: "answers" must be'),
        ('{"question": 3, "answer": "a"}', r':2: "question" must be text, found int'),
        ('{"question": "q", "answer": "a", "domain": "far"}', r':2: "domain" must be'),
        (GOOD, r":2: no id, and the same question is asked on line 1 already"),
        (b'{"question": "\xff", "answer": "a"}', r":2: not valid UTF-8"),
        ("[" * 100_000, r":2: not valid JSON"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str | bytes, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read_jsonl(file(tmp_path, GOOD, line))


def test_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no facts"):
        read_jsonl(file(tmp_path, ""))
    with pytest.raises(InputError, match="no such facts file"):
        read_facts(str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="folder"):
        read_facts(str(tmp_path))
    with pytest.raises(InputError, match="no facts in split 'test'"):
        read_facts(str(file(tmp_path, GOOD)), split="test")
