"""One row of anybody's table becomes the fields of a fact.

Knows names and kinds of columns, not files: every complaint begins with the ``place`` it is given. Nothing is
guessed: a text is one answer whatever separators it holds, unless it is a list written as JSON.
"""

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

from knowshift.errors import InputError

DOMAINS = ("id", "ood")

# The first name that a row has a value under counts. PopQA brings `obj` beside `possible_answers`: both are read.
QUESTION = ("question", "prompt", "query")
ANSWERS = ("answers", "answer")
OBJECT = ("obj", "object")
POSSIBLE = ("possible_answers",)
TOPIC = ("topic", "prop", "relation", "property")
SUBJECT = ("subject", "subj", "s")
ID = ("id", "question_id")
SPLIT = ("split",)
DOMAIN = ("domain",)
KNOWN = frozenset(
    name for names in (QUESTION, ANSWERS, OBJECT, POSSIBLE, TOPIC, SUBJECT, ID, SPLIT, DOMAIN) for name in names
)

# White space, zero-width space, byte order mark, word joiner and direction marks: at the edge of a text they are
# left over from copying and would keep an answer from ever being found.
_EDGES = "".join(map(chr, (0x200B, 0xFEFF, 0x2060, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def fields(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What ``Fact`` is made of, from a row with columns of any of the known names; letter case does not matter.

    Answers may be a text, a list of texts, a list written as JSON in a text, or an object that holds them under
    ``value``, ``text`` or ``aliases`` (TriviaQA, SQuAD).

    Raises:
        InputError: naming ``place`` and column if something is missing, of the wrong kind, or no usable text.
    """
    columns = {name.strip().casefold(): value for name, value in row.items()}
    if len(columns) < len(row):
        names = [name.strip().casefold() for name in row]
        twice = sorted(name for name in KNOWN if names.count(name) > 1)
        if twice:
            raise InputError(f'{place}: the column "{twice[0]}" is here twice: {_listed(row)}')
    domain = _text(columns, DOMAIN, place) or "id"
    if domain not in DOMAINS:
        raise InputError(f'{place}: "domain" must be "id" or "ood", found {domain!r}')
    question = _text(columns, QUESTION, place)
    if not question:
        known = f"{', '.join(QUESTION[:-1])} or {QUESTION[-1]}"
        raise InputError(f'{place}: "question" is missing or empty (a column {known}; found: {_listed(row)})')
    return {
        "id": _text(columns, ID, place),
        "question": question,
        "answers": _answers(columns, place),
        "topic": _text(columns, TOPIC, place),
        "subject": _text(columns, SUBJECT, place),
        "split": _text(columns, SPLIT, place),
        "domain": domain,
    }


def clean(text: str, place: str, column: str) -> str:
    """``text`` without what is invisible at its edges.

    Raises:
        InputError: if it holds a NUL character or half of a surrogate pair: neither is text that could be written.
    """
    if "\x00" in text:
        raise InputError(f'{place}: "{column}" holds a NUL character')
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f'{place}: "{column}" holds half of a surrogate pair at {error.start}') from error
    before = None
    while text != before:
        before, text = text, text.strip().strip(_EDGES)
    return text


def says_nothing(answer: str) -> bool:
    """Whether ``answer`` is punctuation alone: containment would find it in nearly every text."""
    return all(unicodedata.category(letter) in _NOTHING for letter in answer)


_NOTHING = frozenset(("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Zs", "Zl", "Zp", "Cc", "Cf"))


def _text(columns: Mapping[str, Any], names: tuple[str, ...], place: str) -> str:
    name, value = _first(columns, names)
    if value is None:
        return ""
    if isinstance(value, int) and names is ID and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InputError(f'{place}: "{name}" must be text, found {type(value).__name__}')
    return clean(value, place, name)


def _first(columns: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of ``names`` with something in it; an empty cell of a table is nothing."""
    for name in names:
        value = columns.get(name)
        if value is not None and value != "":
            return name, value
    return names[0], None


def _answers(columns: Mapping[str, Any], place: str) -> tuple[str, ...]:
    name, value = _first(columns, ANSWERS)
    found = [(name, value)] if value is not None else [_first(columns, OBJECT), _first(columns, POSSIBLE)]
    given = [
        (column, clean(text, place, column))
        for column, value in found
        if value is not None
        for text in _texts(value, place, column)
    ]
    if not any(value is not None for _, value in found):
        raise InputError(
            f'{place}: "answers" must be a list of texts (or "answer" one text; also obj, possible_answers); '
            f"found: {_listed(columns)}"
        )
    answers = tuple(dict.fromkeys(answer for _, answer in given if answer))
    if not answers:
        raise InputError(f'{place}: "{found[0][0]}" holds no answer')
    for column, answer in given:
        if answer and says_nothing(answer):
            raise InputError(
                f'{place}: "{column}" holds {_short(answer)}, punctuation alone, which nearly every text contains'
            )
    return answers


def _texts(value: Any, place: str, column: str) -> list[str]:
    if isinstance(value, str):
        return _unpacked(value, place, column)
    if isinstance(value, Mapping):
        parts = [value[key] for key in ("value", "text", "aliases") if value.get(key) is not None]
        if parts:
            return [text for part in parts for text in _texts([part] if isinstance(part, str) else part, place, column)]
    elif isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return list(value)
    raise InputError(f'{place}: "{column}" must be a list of texts (or one text), found {_short(value)}')


def _unpacked(text: str, place: str, column: str) -> list[str]:
    """A list written as JSON in a text is that list; ``[sic]`` is one answer; a list in another notation is refused."""
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return [text]
    try:
        items = json.loads(stripped)
    except (ValueError, RecursionError) as error:
        if stripped[1:].lstrip().startswith(("'", '"', "[", "{")):
            raise InputError(
                f'{place}: "{column}" looks like a list but is not JSON (["one", "two"]): {_short(text)}'
            ) from error
        return [text]
    if not all(isinstance(item, str) for item in items):
        raise InputError(f'{place}: "{column}" must be a list of texts, found {_short(text)}')
    return list(items)


def _short(value: object) -> str:
    """How a value is shown in a complaint: a text in quotes, anything else with its kind, neither in full."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "...")
    return f"{type(value).__name__} {value!r:.60}"


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(map(_short, list(row)[:12])) or "nothing"
