"""Training examples: JSONL lines, checked, as the tokens TRL's trainer learns from.

What becomes of an example is what TRL makes of it (end token, prompt out of the loss), to the token; it is done here
once, because a file may mix kinds of examples, and nothing may be cut off, dropped or left without an answer to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowshift.errors import InputError
from knowshift.facts.fact import read_rows
from knowshift.train.chat import Turn, assistant_tokens, conversation, render

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a token that is not learned


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with the completion to learn, and the line it stands on.

    Attributes:
        end: what follows the completion and is learned too; None is the tokenizer's end token. Where a chat template
            wrote the text, its own end of a turn: special tokens stand in such a text already.
        turns: the conversation, where it was one.
        tools: what the assistant may call in it, as the file says it.
    """

    prompt: str
    completion: str
    line: int
    end: str | None = None
    turns: tuple[Turn, ...] = ()
    tools: Any = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """An example as tokens; ``labels`` holds ``IGNORED`` where nothing is learned."""

    ids: list[int]
    labels: list[int]


def read_pairs(path: Path, *, chat: bool = False, text: bool = False) -> list[Pair]:
    """Read a JSONL file of ``prompt`` and ``completion``, or of conversations; other keys are ignored.

    Args:
        path: the file.
        chat: take ``prompt`` and ``completion`` as a user's turn and the assistant's.
        text: take lines of ``text`` too, of which everything is learned.

    Returns:
        The examples in the file's order; conversations are not text yet.

    Raises:
        InputError: naming file and line: not JSON, a key missing, not text or blank; or the file has no line.
    """
    pairs = []
    for number, row in read_rows(path):
        place = f"{path}:{number}"
        if text and "text" in row:
            _check_text(row, ("text",), place)
            pairs.append(Pair("", row["text"], number))
            continue
        turns = conversation(row, place)
        if turns is None:
            _check_text(row, ("prompt", "completion"), place)
            if not chat:
                pairs.append(Pair(row["prompt"], row["completion"], number))
                continue
            turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        pairs.append(Pair("", "", number, turns=tuple(turns), tools=row.get("tools")))
    if not pairs:
        raise InputError(f"{path}: no training examples in this file")
    return pairs


def written(path: Path, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase) -> list[Pair]:
    """The pairs with every conversation as the tokenizer's chat template writes it.

    Raises:
        InputError: naming file and line of a conversation that it cannot write.
    """
    found = []
    for pair in pairs:
        if pair.turns:
            text = render(tokenizer, pair.turns, f"{path}:{pair.line}", tools=pair.tools)
            pair = replace(pair, prompt=text.prompt, completion=text.completion, end=text.end)
        found.append(pair)
    return found


def tokenize(
    path: Path, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, context: int, *, assistant: bool = False
) -> tuple[list[Tokens], int]:
    """The pairs as tokens, each of at most ``context`` with its end.

    Args:
        path: where the pairs stand, for messages.
        pairs: what to learn.
        tokenizer: the model's.
        context: the longest example that is allowed, in tokens.
        assistant: learn every turn of the assistant in a conversation, not the last alone.

    Returns:
        The examples, and how many of them the tokenizer splits differently when prompt and completion are joined, so
        that the model learns to continue another prompt than it will be asked (end the prompt on a token boundary).

    Raises:
        InputError: naming file and line of a pair that does not fit, or a tokenizer without an end token.
    """
    if tokenizer.eos_token is None:
        raise InputError("the model's tokenizer has no end-of-sequence token, so an end cannot be learned")
    prompts, wholes = _split(pairs, tokenizer)
    examples, merged = [], 0
    for pair, prompt, whole in zip(pairs, prompts, wholes, strict=True):
        if assistant:
            if not pair.turns:
                raise InputError(f"{path}:{pair.line}: --set assistant_only_loss needs conversations")
            whole, said = assistant_tokens(tokenizer, pair.turns, f"{path}:{pair.line}")
            labels = [token if learned else IGNORED for token, learned in zip(whole, said, strict=True)]
        else:
            known = next(
                (place for place, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt)
            )
            known = min(known, len(whole))
            merged += known < len(prompt)
            labels = [IGNORED] * known + whole[known:]
        if len(whole) > context:
            raise InputError(
                f"{path}:{pair.line}: prompt and completion are {len(whole)} tokens, the context is {context}"
            )
        if all(label == IGNORED for label in labels):
            raise InputError(f"{path}:{pair.line}: nothing in this example is learned")
        examples.append(Tokens(whole, labels))
    return examples, merged


def to_dataset(examples: Sequence[Tokens]) -> Dataset:
    """The examples in the form that TRL takes as ready."""
    from datasets import Dataset

    return Dataset.from_dict(
        {"input_ids": [example.ids for example in examples], "labels": [example.labels for example in examples]}
    )


def _split(pairs: Sequence[Pair], tokenizer: Any) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of every prompt and of every whole text, in one call for each way of writing special tokens."""
    prompts: list[list[int]] = [[]] * len(pairs)
    wholes: list[list[int]] = [[]] * len(pairs)
    for rendered in (False, True):
        places = [place for place, pair in enumerate(pairs) if (pair.end is not None) == rendered]
        if places:
            chosen = [pairs[place] for place in places]
            asked = tokenizer([pair.prompt for pair in chosen], add_special_tokens=not rendered)["input_ids"]
            texts = [pair.prompt + _ended(pair, tokenizer.eos_token) for pair in chosen]
            whole = tokenizer(texts, add_special_tokens=not rendered)["input_ids"]
            for place, left, right in zip(places, asked, whole, strict=True):
                prompts[place], wholes[place] = left, right
    return prompts, wholes


def _ended(pair: Pair, end: str) -> str:
    if pair.end is not None:
        return pair.completion + pair.end
    return pair.completion if pair.completion.endswith(end) else pair.completion + end


def _check_text(row: dict[str, Any], keys: tuple[str, ...], place: str) -> None:
    for key in keys:
        if key not in row:
            raise InputError(f'{place}: "{key}" is missing; a line needs "prompt" and "completion", or "messages"')
        if not isinstance(row[key], str):
            raise InputError(f'{place}: "{key}" must be text, found {type(row[key]).__name__}')
        if not row[key].strip():
            raise InputError(f'{place}: "{key}" is empty')
