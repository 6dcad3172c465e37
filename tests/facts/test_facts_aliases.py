"""The table of other names: clean, of identical things only, and known to both matchers."""

import re
import tomllib
from importlib import resources
from itertools import chain

import pytest

from knowshift.facts.fact import Fact
from knowshift.facts.matching import Matcher, accepted, alias_groups, fold
from knowshift.facts.sources import read_facts

TABLE = resources.files("knowshift.facts").joinpath("aliases.toml").read_text("utf-8")
GROUPS: list[list[str]] = tomllib.loads(TABLE)["groups"]
WORDS: list[str] = tomllib.loads(TABLE)["everyday_words"]
ABBREVIATION = re.compile(r"(?:[A-Z]\.?){1,5}")


def same(one: str, other: str) -> bool:
    return any(one in group and other in group for group in GROUPS)


def test_a_name_stands_once_in_the_table() -> None:
    names = [fold(name) for name in chain.from_iterable(GROUPS)]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_a_group_is_of_at_least_two_names_in_order() -> None:
    for group in GROUPS:
        assert len(group) >= 2
        assert all(name == " ".join(name.split()) and fold(name) for name in group), group


def test_no_name_is_so_short_that_it_turns_up_by_chance() -> None:
    for name in chain.from_iterable(GROUPS):
        assert ABBREVIATION.fullmatch(name) or len(re.sub(r"\W", "", name)) >= 3 or "&" in name, name


def test_another_name_is_never_found_inside_a_word() -> None:
    for group in GROUPS:
        for name in group[1:]:
            matcher = Matcher(group[:1])
            assert matcher.contains(f"so {name}.") and matcher.strict(f"so {name}."), name
            hidden = re.sub(r"\W", "", f"x{name}x")
            own = fold(group[0]) in fold(hidden) and not ABBREVIATION.fullmatch(group[0])
            assert matcher.contains(hidden) == own, name
            assert not matcher.strict(hidden), name


def test_everyday_words_count_only_with_their_capital() -> None:
    names = set(chain.from_iterable(group[1:] for group in GROUPS))
    assert set(WORDS) <= names
    for group in GROUPS:
        for word in set(WORDS) & set(group[1:]):
            assert Matcher(group[:1]).contains(f"a {word}, so")
            assert not Matcher(group[:1]).contains(f"a {word.lower()}, so")


def test_abbreviations_are_whole_words_in_capitals() -> None:
    assert Matcher(["United States of America"]).contains("made in the USA.")
    assert not Matcher(["United States of America"]).contains("it is usable by us")
    assert not Matcher(["quarterback"]).contains("qb")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("United States of America", "the United States, where it was made"),
        ("United States of America", "the U.S."),
        ("People's Republic of China", "China"),
        ("German Democratic Republic", "East Germany"),
        ("Republic of Cyprus", "Cyprus"),
        ("Kingdom of the Netherlands", "the Netherlands"),
        ("New York City", "New York"),
        ("Bengaluru", "Bangalore"),
        ("Kyiv", "Kiev"),
        ("Oslo", "Christiania"),
        ("Brussels-Capital Region", "Brussels"),
        ("University of Paris (1896-1968)", "the University of Paris"),
        ("Université Laval", "Laval University"),
        ("University of Michigan", "Michigan University"),
        ("University of Durham", "Durham University"),
        ("Stockholm University", "the University of Stockholm"),
        ("Ohio State University", "Ohio State"),
        ("United States Military Academy", "West Point"),
        ("Museo del Prado", "the Prado"),
        ("Aintree Racecourse", "Aintree"),
        ("The Walt Disney Company", "Disney"),
        ("Hyundai Motor Company", "Hyundai"),
        ("Columbia Records", "Columbia"),
        ("Ford Motor Company", "a Ford"),
        ("Apple Inc.", "Apple"),
        ("Kingston upon Hull", "Hull"),
        ("University of Reading", "Reading"),
        ("Eton College", "Eton"),
        ("Warner Bros. Records", "Warner Brothers Records"),
        ("Slovene", "Slovenian"),
        ("Persian", "Farsi"),
        ("actor", "an actress"),
        ("playwright", "a dramatist"),
        ("seiyū", "a voice actor"),
        ("goaltender", "a goalie"),
        ("defenceman", "a defenseman"),
        ("rhythm and blues", "R&B"),
        ("comedy-drama", "a dramedy"),
        ("role-playing video game", "an RPG"),
        ("science fiction", "sci-fi"),
        ("Vincent van Gogh", "Van Gogh"),
        ("Qianlong Emperor", "the Emperor Qianlong"),
    ],
)
def test_an_answer_is_known_by_its_other_name(answer: str, text: str) -> None:
    matcher = Matcher([answer])
    assert matcher.contains(text)
    assert matcher.strict(text)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("United Kingdom", "England"),
        ("South Korea", "North Korea"),
        ("Taiwan", "China"),
        ("Republic of the Congo", "Congo-Kinshasa"),
        ("Miami University", "the University of Miami"),
        ("York University", "the University of York"),
        ("Newcastle University", "the University of Newcastle"),
        ("University of Washington", "Washington University"),
        ("Georgia Institute of Technology", "the University of Georgia"),
        ("University of Sydney", "Western Sydney University"),
        ("Columbia University", "Columbia Records"),
        ("Walt Disney", "The Disney Company"),
        ("Mitsubishi Motors", "Mitsubishi Heavy Industries"),
        ("defender", "a defenceman"),
        ("Chinese", "Cantonese"),
        ("Serbian", "Croatian"),
        ("Irish", "Scottish Gaelic"),
        ("forward", "a midfielder"),
        ("Elizabeth I of England", "Elizabeth II"),
        ("punk rock", "rock music"),
        ("rock music", "punk rock"),
        ("Ghent", "Argentina"),
        ("Saint-Louis", "St. Louis"),
        ("Eton College", "Seton Hall"),
        ("Apple Inc.", "pineapple and apple"),
    ],
)
def test_another_thing_is_not_the_answer(answer: str, text: str) -> None:
    matcher = Matcher([answer])
    assert not matcher.contains(text)
    assert not matcher.strict(text)


def test_names_that_mean_two_things_are_left_out() -> None:
    known = alias_groups()
    assert not {"georgia", "congo", "korea", "america", "england", "washington", "republic of china"} & set(known)


def test_the_order_of_answers_does_not_matter_and_nothing_repeats() -> None:
    names = accepted(["USA", "United States of America"])
    assert names[:1] == ("USA",)
    assert len(set(names)) == len(names)
    assert set(names) == set(accepted(["United States of America", "USA"]))


def test_every_name_of_a_group_is_accepted_for_every_other() -> None:
    for group in GROUPS:
        for name in group:
            assert set(group) <= set(accepted([name])), name


def test_world_answers_keep_to_their_own_topic() -> None:
    """Another name never makes one answer of a topic right where a different one is meant."""
    facts: dict[str, list[Fact]] = {}
    for fact in read_facts("world"):
        facts.setdefault(fact.topic, []).append(fact)
    for topic, members in facts.items():
        firsts = {fact.answers[0] for fact in members}
        for fact in members:
            plain = {fold(answer) for answer in fact.answers}
            matcher = Matcher(fact.answers)
            wrong = [one for one in firsts if matcher.contains(one) and not any(a in fold(one) for a in plain)]
            assert not [one for one in wrong if not same(one, fact.answers[0])], (topic, fact.id)
