"""A fact: a question with the answers that count as right, and where it belongs."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from knowshift.errors import InputError
from knowshift.files import atomic_file

DOMAINS = ("id", "ood")


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact asked closed-book.

    Attributes:
        id: unique within a fact set.
        question: the question in plain words, as used for training and evaluation.
        answers: every accepted answer, the preferred one first.
        topic: the relation, such as ``capital``; a topic with templates is asked by its cloze templates.
        subject: what the question is about, as it stands in the cloze templates.
        split: ``train``, ``validation``, ``test`` or empty.
        domain: ``id`` (in-domain) or ``ood`` (out-of-domain).
    """

    id: str
    question: str
    answers: tuple[str, ...]
    topic: str = ""
    subject: str = ""
    split: str = ""
    domain: str = "id"

    def to_json(self) -> str:
        """One JSON line, without line end."""
        return json.dumps(asdict(self), ensure_ascii=False)


def read_jsonl(path: Path) -> list[Fact]:
    """Read facts from a JSONL file: ``question`` and ``answers`` (or ``answer``) required, the rest optional.

    Raises:
        InputError: naming file and line if a line is malformed or an id stands twice.
    """
    facts: list[Fact] = []
    seen: dict[str, int] = {}
    for number, row in read_rows(path):
        fact = _fact(row, f"{path}:{number}")
        if fact.id in seen:
            raise InputError(f"{path}:{number}: the id {fact.id!r} stands on line {seen[fact.id]} already")
        seen[fact.id] = number
        facts.append(fact)
    if not facts:
        raise InputError(f"{path}: no facts in this file")
    return facts


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a JSONL file with their line numbers; blank lines are passed over."""
    try:
        with path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise InputError(f"{path}:{number}: not valid UTF-8 at byte {error.start}") from error
                if not line:
                    continue
                try:
                    row = json.loads(line)
                except (json.JSONDecodeError, RecursionError) as error:
                    raise InputError(f"{path}:{number}: not valid JSON: {error}") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: a JSON object is expected, found {type(row).__name__}")
                yield number, row
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def write_jsonl(path: Path, lines: Iterable[str]) -> None:
    """Write ready JSON lines, whole or not at all."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as handle:
        handle.writelines(line + "\n" for line in lines)


def _fact(row: dict[str, Any], place: str) -> Fact:
    question = _text(row, "question", place)
    if not question:
        raise InputError(f'{place}: "question" is missing or empty')
    answers = _answers(row, place)
    topic = _text(row, "topic", place)
    domain = _text(row, "domain", place) or "id"
    if domain not in DOMAINS:
        raise InputError(f'{place}: "domain" must be "id" or "ood", found {domain!r}')
    return Fact(
        id=_text(row, "id", place) or _content_id(topic, question),
        question=question,
        answers=answers,
        topic=topic,
        subject=_text(row, "subject", place),
        split=_text(row, "split", place),
        domain=domain,
    )


def _text(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, int) and key == "id" and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InputError(f'{place}: "{key}" must be text, found {type(value).__name__}')
    return value.strip()


def _answers(row: dict[str, Any], place: str) -> tuple[str, ...]:
    value = row.get("answers", row.get("answer"))
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f'{place}: "answers" must be a list of texts (or "answer" one text)')
    answers = tuple(dict.fromkeys(item.strip() for item in value if item.strip()))
    if not answers:
        raise InputError(f'{place}: "answers" holds no answer')
    return answers


def _content_id(topic: str, question: str) -> str:
    return hashlib.blake2b(f"{topic}\n{question}".encode(), digest_size=8).hexdigest()
