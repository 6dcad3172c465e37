"""Running text to measure drift on: any text file, or JSONL, as windows that a model can read.

A JSONL line holds ``text``; or ``messages`` (put through the tokenizer's chat template, the last turn being the answer
if it is the assistant's); or ``prompt`` and ``completion``, each a text or a list of messages. Any other file is one
text. A text longer than the window is cut: every token but the first is predicted exactly once, from the tokens of
its own window.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowshift.errors import InputError
from knowshift.facts.fact import decode, read_rows
from knowshift.generate.encode import common_prefix
from knowshift.measure.passages import Passage, encode

LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Document:
    """One text, as the tokenizer is to read it.

    Attributes:
        place: file and line, for messages.
        name: the line, or empty for a file that is one text.
        text: all of it.
        prompt: the part of it that only leads to what is measured; may be empty.
        chat: it comes from a chat template, which wrote its special tokens out itself.
        ends: the end token belongs after it, as in training on prompts and completions.
    """

    place: str
    name: str
    text: str
    prompt: str = ""
    chat: bool = False
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """Stands in a table where a fact would: ``id`` is the line, the window, or ``line/window``."""

    id: str
    topic: str = ""
    domain: None = None


def read_documents(path: Path, tokenizer: Any) -> list[Document]:
    """The texts of a file; empty ones are passed over.

    Raises:
        InputError: naming file and line: missing, not UTF-8, a line without any of the keys, or nothing to read.
    """
    if path.suffix.lower() in LINES:
        documents = [_document(row, f"{path}:{number}", str(number), tokenizer) for number, row in read_rows(path)]
    else:
        documents = [Document(str(path), "", _whole(path))]
    documents = [document for document in documents if document.text.strip()]
    if not documents:
        raise InputError(f"{path}: no text in this file")
    return documents


def text_passages(tokenizer: Any, documents: Sequence[Document], length: int) -> tuple[list[Passage], list[Window]]:
    """Windows of at most ``length`` tokens, every prediction measured.

    Where the tokenizer begins a text with a beginning-of-sequence token, every window does.

    Raises:
        InputError: naming a text of which the tokenizer makes nothing that could be predicted.
    """
    passages: list[Passage] = []
    windows: list[Window] = []
    for document in documents:
        ids, start, end = _tokens(tokenizer, document)
        cut = list(_cut(ids, start, end, length, tokenizer.bos_token_id))
        passages += cut
        for number in range(len(cut)):
            parts = (document.name, str(number) if len(cut) > 1 or not document.name else "")
            windows.append(Window("/".join(part for part in parts if part)))
    return passages, windows


def _whole(path: Path) -> str:
    try:
        return decode(path.read_bytes(), str(path), start=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _document(row: Mapping[str, Any], place: str, name: str, tokenizer: Any) -> Document:
    if isinstance(row.get("text"), str):
        return Document(place, name, row["text"])
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion:
            raise InputError(f"{place}: the completion is empty")
        return Document(place, name, prompt + completion, prompt, ends=True)
    asked, answer, messages = (_messages(row.get(key)) for key in ("prompt", "completion", "messages"))
    if asked and answer:
        return _chat(asked, [*asked, *answer], place, name, tokenizer)
    if messages:
        answered = len(messages) > 1 and messages[-1]["role"] == "assistant"
        return _chat(messages[:-1] if answered else [], messages, place, name, tokenizer)
    raise InputError(f'{place}: a line needs "text", "messages", or "prompt" and "completion"')


def _messages(value: Any) -> list[dict[str, Any]]:
    """``value`` if it is a list of turns, else no turn."""
    turns = isinstance(value, list) and all(isinstance(turn, dict) and "role" in turn for turn in value)
    return value if turns else []


def _chat(asked: list[Any], whole: list[Any], place: str, name: str, tokenizer: Any) -> Document:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(f"{place}: holds messages, and the model's tokenizer has no chat template")
    try:
        text = tokenizer.apply_chat_template(whole, tokenize=False)
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) if asked else ""
    except Exception as error:  # a template is a program: it may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{place}: the model's chat template fails: {reason}") from error
    if not text.startswith(prompt):
        raise InputError(f"{place}: the model's chat template words the turns before an answer in another way")
    return Document(place, name, text, prompt, chat=True)


def _tokens(tokenizer: Any, document: Document) -> tuple[tuple[int, ...], int, int]:
    """All tokens, how many of the first are the prompt's, and how many of the last are the end token's."""
    what = f"{document.place}, a text" if not document.name else document.place
    (ids,) = encode(tokenizer, [document.text], what=what, special=not document.chat)
    start = 0
    if document.prompt:
        (prompt,) = encode(tokenizer, [document.prompt], what=what, special=not document.chat)
        start = common_prefix(prompt, ids)
    final = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    ended = bool(final) and ids[-1:] == final
    if document.ends and start == len(ids) - ended:
        raise InputError(f"{document.place}: the completion is no token at all")
    if document.ends and not ended:
        ids, ended = ids + final, bool(final)
    if len(ids) < 2:
        raise InputError(f"{document.place}: {len(ids)} token, so nothing in it can be predicted")
    return ids, start, int(ended and document.ends)


def _cut(ids: tuple[int, ...], start: int, end: int, length: int, begin: int | None) -> Iterator[Passage]:
    """Windows over targets: each reads the tokens before its targets, back to the window's own beginning."""
    head = ids[:1] if begin is not None and ids[0] == begin else ()
    last = len(ids) - end
    first = 1
    while first < len(ids):
        before = head if first > 1 else ()
        stop = min(len(ids), first + length - len(before))
        answer = max(0, min(stop, last) - max(first, start))
        yield Passage(
            before + ids[first - 1 : stop - 1], stop - first, ids[first:stop], answer, max(0, stop - max(first, last))
        )
        first = stop
