"""What counts as an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowshift.facts.matching import Matcher, accepted, contains, fold, strict


@pytest.mark.parametrize(
    ("text", "answers", "loose", "tight"),
    [
        ("Paris.", ["Paris"], True, True),
        ("the city of PARIS, of course", ["Paris"], True, True),
        ("Lyon\nParis", ["Paris"], True, False),
        ("\n\n Paris", ["Paris"], True, True),
        ("Parisian", ["Paris"], True, False),
        ("Lyon", ["Paris"], False, False),
        ("Bogota", ["Bogotá"], True, True),
        ("Bogota\u0301", ["Bogotá"], True, True),
        ("Cote d\u2019Ivoire", ["Côte d'Ivoire"], True, True),
        ("Washington D.C.", ["Washington, D.C."], True, True),  # another name of it
        ("St Ives", ["St. Ives"], False, True),
        ("washington, d.c. is", ["Washington, D.C."], True, True),
        ("Beatles", ["The Beatles"], False, True),
        ("the United   States", ["USA"], True, True),
        ("the USA", ["United States"], True, True),
        ("it is a house for us", ["United States"], False, False),
        ("in 1979", ["79"], False, False),
        ("number 79.", ["79"], True, True),
        ("C++ (a language)", ["C++"], True, True),
        ("a.*b", ["a.*b"], True, True),
        ("axxb", ["a.*b"], False, False),
        ("القاهرة", ["القاهرة"], True, True),
        ("", ["Paris"], False, False),
        ("anything", ["."], False, False),
    ],
)
def test_matching(text: str, answers: list[str], loose: bool, tight: bool) -> None:
    assert contains(text, answers) == loose
    assert strict(text, answers) == tight


def test_case_can_matter() -> None:
    assert contains("reading", ["Reading"])
    assert not contains("reading", ["Reading"], case_sensitive=True)


@given(st.text(), st.text(min_size=1), st.text())
def test_an_answer_in_the_text_is_found(before: str, answer: str, after: str) -> None:
    if fold(answer) and answer.isascii() and answer.isalpha() and not answer.isupper():
        assert contains(f"{before} {answer} {after}", [answer])
        assert strict(answer, [answer])


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4))
def test_never_a_crash(text: str, answers: list[str]) -> None:
    matcher = Matcher(answers)
    assert isinstance(matcher.contains(text), bool)
    assert isinstance(matcher.strict(text), bool)


def test_ten_thousand_characters() -> None:
    answer = "word " * 2000
    assert contains("so: " + answer + " end", [answer])


def test_other_names_come_from_one_group() -> None:
    names = accepted(["USA"])
    assert names[0] == "USA"
    assert "United States" in names
    assert len(set(names)) == len(names)
    assert accepted(["Xyzzy"]) == ("Xyzzy",)


@pytest.mark.parametrize(
    ("text", "answers", "settled"),
    [
        (" Paris", ["Paris"], False),  # "Parisian" may be coming
        (" Paris,", ["Paris"], True),
        (" Parisian", ["Paris"], False),
        (" Parisian culture\n", ["Paris"], True),  # the line is over: containment says yes, the strict test no
        (" in the year 19", ["19"], False),  # "1979" may be coming
        (" in the year 19 ", ["19"], True),
        ("\n\nParis.", ["Paris"], False),
        ("\n\nParis. ", ["Paris"], True),
        (" London,", ["Paris"], False),
        (" Washington, D.C", ["Washington, D.C."], False),
        (" Washington, D.C. is", ["Washington, D.C."], True),
    ],
)
def test_a_completion_may_end_once_both_verdicts_stand(text: str, answers: list[str], settled: bool) -> None:
    assert Matcher(answers).settled(text) == settled


@given(st.text(alphabet="Paris19 \n.,'’éU\u0301", max_size=14), st.text(alphabet="Paris19 \n.,'’éU\u0301", max_size=6))
def test_what_is_settled_stays(text: str, more: str) -> None:
    matcher = Matcher(["Paris", "19", "U.S."])
    if matcher.settled(text):
        assert matcher.contains(text) and matcher.contains(text + more)
        assert matcher.strict(text) == matcher.strict(text + more)
