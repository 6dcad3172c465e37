"""A fact: a question with the answers that count as right, and where it belongs; and facts as JSONL."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from knowshift.errors import InputError
from knowshift.facts.columns import DOMAINS, fields
from knowshift.files import atomic_file

__all__ = ["DOMAINS", "Fact", "build", "decode", "read_jsonl", "read_rows", "write_jsonl"]


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

    Other column names are understood too (``columns.py``).

    Raises:
        InputError: naming file and line if a line is malformed, or a fact stands twice.
    """
    return build(str(path), ((f":{number}", row) for number, row in read_rows(path)))


def build(source: str, rows: Iterable[tuple[str, dict[str, Any]]]) -> list[Fact]:
    """Facts from rows that come with their place in ``source`` (``:12``, ``[3]``).

    A row without an id gets one from its topic, question and split. Two rows with one id are refused: which of
    them holds, and whether their answers belong together, is for the owner of the data to say.

    Raises:
        InputError: naming the place of a malformed row, both places of a fact that stands twice, or no facts.
    """
    facts: list[Fact] = []
    seen: dict[str, str] = {}
    for where, row in rows:
        values = fields(row, f"{source}{where}")
        given = values["id"]
        fact = Fact(**values | {"id": given or _content_id(values)})
        if fact.id in seen:
            earlier = _spoken(seen[fact.id])
            said = f"the id {fact.id!r} stands on" if given else "no id, and the same question is asked on"
            raise InputError(f"{source}{where}: {said} {earlier} already; each fact needs an id of its own")
        seen[fact.id] = where
        facts.append(fact)
    if not facts:
        raise InputError(f"{source}: no facts in this file")
    return facts


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a JSONL file with their line numbers; blank lines are passed over."""
    try:
        with path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                line = decode(raw, f"{path}:{number}", start=number == 1).strip()
                if not line:
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}:{number}: not valid JSON: {error}") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: a JSON object is expected, found {type(row).__name__}")
                yield number, row
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def decode(raw: bytes, place: str, *, start: bool) -> str:
    """UTF-8 as text; ``start`` says that this is how the file begins, where a byte order mark may stand.

    Raises:
        InputError: naming ``place`` if it is not UTF-8.
    """
    if start and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{place}: this file is UTF-16; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig" if start else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not valid UTF-8 at byte {error.start}") from error


def write_jsonl(path: Path, lines: Iterable[str]) -> None:
    """Write ready JSON lines, whole or not at all."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as handle:
        handle.writelines(line + "\n" for line in lines)


def _content_id(values: dict[str, Any]) -> str:
    """An id that does not depend on where the row stands; the split is part of it only where there is one."""
    parts = [values["topic"], values["question"], values["split"]]
    content = "\n".join(parts if values["split"] else parts[:2])
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _spoken(where: str) -> str:
    return f"line {where[1:]}" if where.startswith(":") else f"row {where[1:-1]}"
