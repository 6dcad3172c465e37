"""The parts: disjoint, in their shares, and the same whatever else is in the file."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowshift.errors import InputError
from knowshift.repair.split import PARTS, check_enough, drawn, part_of, split

QUESTIONS = [f"Where is place number {number}?" for number in range(4000)]


def test_shares():
    parts = split(QUESTIONS, str)
    for part, share in zip(PARTS, (0.5, 0.25, 0.25), strict=True):
        spread = math.sqrt(len(QUESTIONS) * share * (1 - share))
        assert abs(len(parts[part]) - share * len(QUESTIONS)) < 4 * spread


@given(st.lists(st.text(max_size=20)), st.lists(st.text(max_size=20)), st.randoms(use_true_random=False))
def test_each_item_has_one_part_which_no_other_line_changes(items, more, random):
    before = split(items, str)
    assert sorted(item for part in PARTS for item in before[part]) == sorted(items)
    together = [*items, *more]
    random.shuffle(together)
    after = split(together, str)
    for part in PARTS:
        assert set(before[part]) <= set(after[part])
        assert not set(before[part]) & {item for other in PARTS if other != part for item in after[other]}


def test_the_same_question_under_another_id_is_in_the_same_part():
    for question in QUESTIONS[:200]:
        assert part_of(question) == part_of(f"  {question.upper()}\n") == part_of(question.replace(" ", "  "))


def test_the_parts_stay_what_they_are_from_version_to_version():
    found = {question: part_of(question) for question in ("Who?", "Where?", "When?", "Why?")}
    assert found == {"Who?": "search", "Where?": "search", "When?": "test", "Why?": "validation"}


def test_the_order_is_drawn_and_nested():
    first, other = drawn(QUESTIONS[:50], str, 0), drawn(QUESTIONS[:50], str, 1)
    assert sorted(first) == sorted(other) and first != other
    assert [question for question in first if question in QUESTIONS[:20]] == drawn(QUESTIONS[:20], str, 0)


def test_five_lines_are_refused_in_one_sentence():
    with pytest.raises(InputError) as refused:
        check_enough(split(QUESTIONS[:5], str), "task.jsonl", "prompts")
    text = str(refused.value)
    assert text.startswith("task.jsonl: 5 prompts are too few: ") and "\n" not in text and "at least 10" in text
    check_enough(split(QUESTIONS[:100], str), "task.jsonl", "prompts")
