"""The 21 wordings of every topic, and of facts without a topic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowshift.facts.fact import DOMAINS, Fact
from knowshift.facts.templates import FORMS, QUESTION_FORMS, fill, templates_for, topics


def fact(topic: str = "", subject: str = "", question: str = "Who?") -> Fact:
    return Fact(id="x", question=question, answers=("y",), topic=topic, subject=subject)


@pytest.mark.parametrize("name", sorted(topics()))
def test_a_topic_has_21_prefixes_ready_for_the_answer(name: str) -> None:
    topic = topics()[name]
    assert topic.name == name
    assert topic.domain in DOMAINS
    assert topic.title
    assert topic.question.count("{subject}") == 1
    assert topic.question.endswith("?")
    assert len(set(topic.cloze)) == FORMS == 21
    for form in topic.cloze:
        assert form.count("{subject}") == 1
        assert form[-1].isalpha(), form
        assert "?" not in form
        assert "  " not in form
        assert form.count("{") == 1
        assert len(form.split()) <= 14, form


def test_a_known_topic_is_asked_by_its_prefixes() -> None:
    prompts = templates_for(fact("capital_of_country", "France", "What is the capital of France?"))
    assert prompts[0] == "The capital of France is"
    assert len(set(prompts)) == FORMS
    assert all("France" in prompt for prompt in prompts)


def test_a_small_letter_that_opens_the_sentence_is_capitalised() -> None:
    prompts = templates_for(fact("continent_of_country", "the Netherlands"))
    assert prompts[0].startswith("The Netherlands is")
    assert any("of the Netherlands" in prompt for prompt in prompts)
    assert fill("{subject} is", "the iPhone") == "The iPhone is"
    assert fill("{subject} is", "eBay") == "eBay is"
    assert fill("{subject} is", "an emu") == "An emu is"
    assert fill("{subject} is", "æbleskiver") == "Æbleskiver is"
    assert fill("I like {subject} from", "sushi") == "I like sushi from"


@pytest.mark.parametrize(
    "case",
    [fact("capital_of_country", "", "Capital of Peru?"), fact("no such topic", "Peru", "Capital of Peru?")],
)
def test_other_facts_are_asked_by_their_question(case: Fact) -> None:
    prompts = templates_for(case)
    assert len(set(prompts)) == FORMS
    assert all(case.question in prompt for prompt in prompts)
    assert not any(prompt.endswith(" ") for prompt in prompts)


def test_question_forms_take_the_question_once() -> None:
    assert len(set(QUESTION_FORMS)) == FORMS
    assert all(form.count("{question}") == 1 for form in QUESTION_FORMS)


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=("Cs",))), st.sampled_from(sorted(topics())))
def test_any_subject_survives(subject: str, topic: str) -> None:
    """Braces and backslashes too: a subject is put in as it is, but for a capital where it opens the sentence."""
    prompts = templates_for(fact(topic, subject))
    assert len(prompts) == FORMS
    for form, prompt in zip(topics()[topic].cloze, prompts, strict=True):
        before, after = form.split("{subject}")
        assert len(prompt) == len(before) + len(subject) + len(after)
        assert prompt.casefold() == (before + subject + after).casefold()
