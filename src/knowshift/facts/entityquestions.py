"""EntityQuestions (Sciavolino et al. 2021) as facts: 24 relations of Wikidata, 10 of them in-domain.

Reads the published layout, ``train/P17.train.json`` and so on (``dev`` and ``test`` likewise), from a folder, a tar
or a zip, and applies the filter that the paper's totals (section 2) imply: questions with one answer, each asked
once in a split and domain. Knows nothing of cloze templates but the shape of a topic's question.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from knowshift.errors import InputError
from knowshift.facts.archive import read_members
from knowshift.facts.columns import clean
from knowshift.facts.fact import Fact
from knowshift.facts.templates import topics

# Questions are pooled in this order, and the first to ask stands. P131 and P276 ask in the same words and share 29
# questions of the train split: with P276 first (as in the published archive) the in-domain train and test splits
# share 126 pairs of topic and question, which is the paper's number; with P131 first it would be 125.
IN_DOMAIN = ("P17", "P19", "P20", "P36", "P69", "P276", "P131", "P159", "P495", "P740")
OUT_OF_DOMAIN = (
    *("P26", "P40", "P50", "P106", "P112", "P127", "P136", "P170", "P175", "P176", "P264", "P407", "P413", "P800"),
)
TEMPLATES = "relation_query_templates.json"
SUBJECT = "[X]"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the data set: a topic in a split. Out-of-domain topics have no train split: nothing is trained."""

    topic: str
    split: str
    domain: str

    @property
    def name(self) -> str:
        """Path of the file below the folder of the data set."""
        folder = {"validation": "dev"}.get(self.split, self.split)
        return f"{folder}/{self.topic}.{folder}.json"


PARTS = tuple(
    Part(topic, split, domain)
    for split in ("train", "validation", "test")
    for domain, names in (("id", IN_DOMAIN), ("ood", OUT_OF_DOMAIN))
    for topic in names
    if (split, domain) != ("train", "ood")
)
_NAMES = {part.name for part in PARTS}


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of a file, as it stands there; ``index`` counts from 0."""

    part: Part
    index: int
    question: str
    answers: tuple[str, ...]


def read_entityquestions(path: Path) -> list[Fact]:
    """The facts of the data set at ``path``; the paper's filter leaves 75,944 / 9,555 / 11,613 of it.

    A fact's id is the place of its row, as in ``P17/train/123``: the data set is frozen, and so each fact can be
    looked up where it came from. ``dev`` is the split ``validation`` here.

    Args:
        path: a folder (the one that holds ``train``, or the one above it), or a tar, tar.gz or zip of it.

    Raises:
        InputError: naming file and entry: missing, damaged, or a question its topic's template does not make.
    """
    members = read_members(path, _wanted)
    shapes = _shapes(path, members)
    asked: set[tuple[str, str, str]] = set()
    facts = []
    for row in rows(path, members):
        part = row.part
        key = (part.split, part.domain, row.question)
        if len(row.answers) > 1 or key in asked:
            continue
        asked.add(key)
        facts.append(
            Fact(
                id=f"{part.topic}/{part.split}/{row.index}",
                question=row.question,
                answers=row.answers,
                topic=part.topic,
                subject=_subject(row, *shapes[part.topic], f"{path}: {part.name}[{row.index}]"),
                split=part.split,
                domain=part.domain,
            )
        )
    return facts


def content(path: Path) -> tuple[int, str]:
    """What the data set says, whatever it is packed in: the number of its rows, and a digest over all of them.

    SHA-256 over the sorted rows, each a JSON line of split, topic, question and answers.
    """
    lines = sorted(
        json.dumps([row.part.split, row.part.topic, row.question, row.answers])
        for row in rows(path, read_members(path, _wanted))
    )
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()


def rows(path: Path, members: dict[str, bytes]) -> Iterator[Row]:
    """Every entry of every file, in order and unfiltered.

    Raises:
        InputError: naming the first file that is missing, or file and entry of what is malformed.
    """
    missing = [part.name for part in PARTS if part.name not in members]
    if len(missing) == len(PARTS):
        raise InputError(f"{path}: not EntityQuestions: no file {missing[0]} (nor any of the others) in it")
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing ({len(missing)} of {len(PARTS)} files)")
    for part in PARTS:
        place = f"{path}: {part.name}"
        entries = _parsed(members[part.name], place)
        if not isinstance(entries, list):
            raise InputError(f"{place}: a list of questions is expected, found {type(entries).__name__}")
        for index, entry in enumerate(entries):
            yield Row(part, index, *_entry(entry, f"{place}[{index}]"))


def _wanted(member: PurePosixPath) -> str | None:
    if member.name == TEMPLATES:
        return TEMPLATES
    name = f"{member.parent.name}/{member.name}"
    return name if name in _NAMES else None


def _parsed(raw: bytes, place: str) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not valid UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not valid JSON: {error}") from error


def _entry(entry: Any, place: str) -> tuple[str, tuple[str, ...]]:
    if not isinstance(entry, dict):
        raise InputError(f"{place}: an object is expected, found {type(entry).__name__}")
    question, answers = entry.get("question"), entry.get("answers")
    if not isinstance(question, str) or not (question := clean(question, place, "question")):
        raise InputError(f'{place}: "question" must be a text')
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise InputError(f'{place}: "answers" must be a list of texts')
    cleaned = tuple(clean(answer, place, "answers") for answer in answers)
    if not cleaned or not all(cleaned):
        raise InputError(f'{place}: "answers" is empty or holds an empty text')
    return question, cleaned


def _shapes(path: Path, members: dict[str, bytes]) -> dict[str, tuple[str, str]]:
    """What stands before and after the subject in each topic's questions.

    The data set's own list of templates says so; without that file (the public archive may lack it), the topic's
    question as knowshift knows it.
    """
    if TEMPLATES not in members:
        known = topics()
        halves = {name: known[name].question.partition("{subject}") for name in (*IN_DOMAIN, *OUT_OF_DOMAIN)}
        return {name: (before, after) for name, (before, _, after) in halves.items()}
    place = f"{path}: {TEMPLATES}"
    table = _parsed(members[TEMPLATES], place)
    shapes = {}
    for name in (*IN_DOMAIN, *OUT_OF_DOMAIN):
        template = table.get(name) if isinstance(table, dict) else None
        if not isinstance(template, str) or template.count(SUBJECT) != 1:
            raise InputError(f"{place}: no question for {name} with {SUBJECT} once in it")
        before, _, after = template.partition(SUBJECT)
        shapes[name] = (before, after)
    return shapes


def _subject(row: Row, before: str, after: str, place: str) -> str:
    question = row.question
    subject = question[len(before) : len(question) - len(after)].strip()
    if not (subject and question.startswith(before) and question.endswith(after)):
        raise InputError(f"{place}: the question {question!r:.80} is not of the form {before}{SUBJECT}{after!s}")
    return subject
