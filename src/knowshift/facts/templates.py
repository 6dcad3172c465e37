"""How a fact is put into words, 21 times.

A topic of the fact sets that knowshift knows has 21 cloze prefixes that a base model completes with the answer, as
in the paper (section 3: N_map = 21), in a table beside its fact set; any other fact is asked by 21 built-in ways to
put its question. Knows wording only: not who answers, and not what counts as right.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from knowshift.facts.fact import Fact

FORMS = 21

QUESTION_FORMS: tuple[str, ...] = (
    "Q: {question}\nA:",
    "Question: {question}\nAnswer:",
    "{question} The answer is",
    "{question} Answer:",
    "{question}\n",
    "{question} It is",
    "{question}\nAnswer in a few words:",
    "{question} The correct answer is",
    "Here is a quiz question: {question} The right answer is",
    "Trivia: {question}\nSolution:",
    "Please answer briefly. {question}\nAnswer:",
    "Teacher: {question}\nStudent:",
    "Student: {question}\nTeacher: The answer is",
    "I was asked: {question} My answer was",
    "User: {question}\nAssistant:",
    "Quizmaster: {question}\nContestant: That is",
    "Fact check. {question} The short answer is",
    "{question} Everybody knows that it is",
    "Exam question: {question}\nModel answer:",
    'The encyclopedia answers the question "{question}" with',
    'Someone asked, "{question}" The reply was',
)

_SUBJECT = "{subject}"


@dataclass(frozen=True, slots=True)
class Topic:
    """A relation between subjects and answers, with the ways to ask for it.

    Attributes:
        name: as in ``Fact.topic``.
        domain: ``id`` (in-domain) or ``ood`` (out-of-domain).
        title: for people.
        question: one question with ``{subject}`` in it.
        cloze: 21 prefixes with ``{subject}`` once in each; the answer follows.
    """

    name: str
    domain: str
    title: str
    question: str
    cloze: tuple[str, ...]


# Each fact set's table of topics, by the name that ``--facts`` knows the set by.
_TABLES = {"world": "world/topics.toml", "entityquestions": "entityquestions_topics.toml"}


@cache
def topics(fact_set: str | None = None) -> dict[str, Topic]:
    """Every topic that has templates of its own, by name; with ``fact_set``, those of that set alone.

    Tables are read when first asked for. No name stands in two of them.
    """
    if fact_set is None:
        return {name: topic for known in _TABLES for name, topic in topics(known).items()}
    text = resources.files("knowshift.facts").joinpath(_TABLES[fact_set]).read_text("utf-8")
    return {
        name: Topic(name, table["domain"], table["title"], table["question"], tuple(table["cloze"]))
        for name, table in tomllib.loads(text).items()
    }


def templates_for(fact: Fact) -> tuple[str, ...]:
    """The 21 prompts that ask for ``fact``, in a fixed order, so that an index names a wording."""
    topic = topics().get(fact.topic)
    if topic is None or not fact.subject:
        return tuple(form.replace("{question}", fact.question) for form in QUESTION_FORMS)
    return tuple(fill(form, fact.subject) for form in topic.cloze)


def fill(form: str, subject: str) -> str:
    """``form`` with the subject in its place; a small letter that comes to open the sentence is made a capital."""
    first_word, first = subject.split(" ", 1)[0], subject[:1]
    if form.startswith(_SUBJECT) and first_word.islower() and first.upper().lower() == first:
        subject = first.upper() + subject[1:]
    return form.replace(_SUBJECT, subject)
