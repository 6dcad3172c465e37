"""The 21 wordings of every topic, and of facts without a topic."""

import re
import string
import subprocess
import sys
import tomllib
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowshift.facts.entityquestions import IN_DOMAIN, OUT_OF_DOMAIN
from knowshift.facts.fact import DOMAINS, Fact
from knowshift.facts.templates import FORMS, QUESTION_FORMS, fill, templates_for, topics

# Words after which a name does not follow, whatever it is.
DANGLING = {"a", "an", "or", "than", "very", "who", "which", "that", "whose", "not", "his", "her", "their"}
ODD_SUBJECTS = ["{subject}", "{}", "{0}", "100% {x!r}", r"a\1.*(b)[c]+$", "the \"Q\" said: 'no'", "%s", "Ō\u200e", "A:"]


def fact(topic: str = "", subject: str = "", question: str = "Who?") -> Fact:
    return Fact(id="x", question=question, answers=("y",), topic=topic, subject=subject)


def plain(form: str) -> str:
    """Words alone: what is left when case and punctuation are looked through."""
    return " ".join(re.findall(r"\w+", form.casefold()))


@pytest.mark.parametrize("name", sorted(topics()))
def test_a_topic_has_21_prefixes_ready_for_the_answer(name: str) -> None:
    topic = topics()[name]
    assert topic.name == name
    assert topic.domain in DOMAINS
    assert topic.title
    assert topic.question.count("{subject}") == 1
    assert topic.question.endswith("?")
    assert len(topic.cloze) == FORMS == 21
    for form in topic.cloze:
        assert form.count("{subject}") == form.count("{") == form.count("}") == 1
        assert form[-1].isalpha() or form[-1] == ":", form
        assert plain(form).split()[-1] not in DANGLING, form
        assert "?" not in form
        assert form == " ".join(form.split()), "one space between words, none at the ends"
        assert len(form.split()) <= 14, form
        assert not re.search(r"\s[,.:;]|[,.;]$", form), form


@pytest.mark.parametrize("name", sorted(topics()))
def test_no_wording_comes_twice(name: str) -> None:
    topic = topics()[name]
    wordings = {plain(form) for form in topic.cloze}
    assert len(wordings) == FORMS
    assert plain(topic.question) not in wordings


def test_the_article_before_an_answer_is_left_to_the_model() -> None:
    """An answer that is a name takes none; one that is a noun takes "a" or "an" as it needs."""
    for topic in topics("entityquestions").values():
        assert not [form for form in topic.cloze if form.endswith(" the")]


def test_frames_in_note_form_are_few() -> None:
    for topic in topics("entityquestions").values():
        assert sum(form.endswith(":") for form in topic.cloze) <= 3, topic.name


def test_entityquestions_has_its_24_topics() -> None:
    known = topics("entityquestions")
    domains = dict.fromkeys(IN_DOMAIN, "id") | dict.fromkeys(OUT_OF_DOMAIN, "ood")
    assert {name: topic.domain for name, topic in known.items()} == domains, "as the reader of the data set sorts them"
    assert (len(known), len(IN_DOMAIN)) == (24, 10)
    assert len({topic.title for topic in known.values()}) == len(known)


def test_topics_of_all_sets_stand_together() -> None:
    sets = [topics("world"), topics("entityquestions")]
    assert topics() == sets[0] | sets[1]
    assert len(topics()) == sum(map(len, sets)), "no name in two sets"


def test_no_wording_gives_a_common_answer_away() -> None:
    """Answers from a short list, where a word in the prompt would be the answer."""
    closed = {
        "P17": ["United States", "Iran", "Poland"],
        "P106": ["politician", "actor", "composer", "journalist", "poet", "architect"],
        "P136": ["jazz", "rock", "comedy", "documentary", "pop", "horror", "punk"],
        "P407": ["English", "French", "Russian", "Spanish", "Italian"],
        "P413": ["midfielder", "defenceman", "linebacker", "goaltender", "guard", "forward", "centre", "wing"],
        "P495": ["United States", "Canada", "Japan"],
    }
    for name, answers in closed.items():
        words = set(" ".join(map(plain, topics()[name].cloze)).split())
        assert not words & {plain(answer) for answer in answers}


def test_tables_are_read_when_asked_for() -> None:
    code = (
        "import sys, knowshift.facts.templates as t; loaded = t.topics.cache_info().currsize; t.topics('world');"
        "print(loaded, t.topics.cache_info().currsize, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1", "False"]


@pytest.mark.parametrize("table", ["world/topics.toml", "entityquestions_topics.toml"])
def test_tables_hold_nothing_else(table: str) -> None:
    text = resources.files("knowshift.facts").joinpath(table).read_text("utf-8")
    for entry in tomllib.loads(text).values():
        assert set(entry) == {"domain", "title", "question", "cloze"}


def test_a_known_topic_is_asked_by_its_prefixes() -> None:
    prompts = templates_for(fact("capital_of_country", "France", "What is the capital of France?"))
    assert prompts[0] == "The capital of France is"
    assert len(set(prompts)) == FORMS
    assert all("France" in prompt for prompt in prompts)


def test_a_topic_of_entityquestions_is_asked_by_its_prefixes() -> None:
    prompts = templates_for(fact("P36", "Hokkaidō", "What is the capital of Hokkaidō?"))
    assert prompts[0] == "The capital of Hokkaidō is"
    assert len(set(prompts)) == FORMS
    assert templates_for(fact("P276", "murder of X"))[0] == "Murder of X is located in"


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
    assert len(set(QUESTION_FORMS)) == len({plain(form) + form[-1] for form in QUESTION_FORMS}) == FORMS
    assert all(form.count("{question}") == 1 for form in QUESTION_FORMS)


@pytest.mark.parametrize("subject", ODD_SUBJECTS)
def test_an_odd_subject_stands_in_the_prompt_as_it_is(subject: str) -> None:
    for topic in topics().values():
        prompts = templates_for(fact(topic.name, subject))
        for form, prompt in zip(topic.cloze, prompts, strict=True):
            before, after = form.split("{subject}")
            assert prompt[len(before) : len(prompt) - len(after)].casefold() == subject.casefold()
            assert prompt.startswith(before)
            assert prompt.endswith(after)


@given(
    st.text(min_size=1, alphabet=st.characters(exclude_categories=("Cs",)))
    | st.text(min_size=1, alphabet=string.punctuation),
    st.sampled_from(sorted(topics())),
)
def test_any_subject_survives(subject: str, topic: str) -> None:
    """Braces and backslashes too: a subject is put in as it is, but for a capital where it opens the sentence."""
    prompts = templates_for(fact(topic, subject))
    assert len(prompts) == FORMS
    for form, prompt in zip(topics()[topic].cloze, prompts, strict=True):
        before, after = form.split("{subject}")
        assert len(prompt) == len(before) + len(subject) + len(after)
        assert prompt.casefold() == (before + subject + after).casefold()
