"""Conversations as a chat template writes them: what the model is asked, and the last assistant turn as the answer.

Knows roles and templates; not files or lengths.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from knowshift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turn = Mapping[str, Any]


class Rendered(NamedTuple):
    """A conversation as text: up to the last assistant turn, what that turn says, and how the template ends it."""

    prompt: str
    completion: str
    end: str


def conversation(row: Mapping[str, Any], place: str) -> list[dict[str, Any]] | None:
    """The turns of a row with ``messages``, or with ``prompt`` and ``completion`` as lists of turns; None for text.

    Raises:
        InputError: naming ``place``: turns that are none, or none to learn at the end.
    """
    if "messages" in row:
        turns = _turns(row["messages"], "messages", place)
    elif isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list):
        turns = [turn for key in ("prompt", "completion") for turn in _turns(row.get(key), key, place)]
    else:
        return None
    if turns[-1]["role"] != "assistant":
        raise InputError(f"{place}: the last turn is the {turns[-1]['role']}'s; what is learned is the assistant's")
    if len(turns) < 2:
        raise InputError(f"{place}: there is no turn before the assistant's")
    content = turns[-1].get("content")
    if not turns[-1].get("tool_calls") and not (isinstance(content, str) and content.strip()):
        raise InputError(f"{place}: the assistant's last turn is empty")
    return turns


def render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], place: str, *, tools: Any = None) -> Rendered:
    """The conversation by the tokenizer's chat template.

    Raises:
        InputError: naming ``place``, if there is no template or it takes no such conversation.
    """
    if not tokenizer.chat_template:
        raise InputError(f"{place}: turns of a chat, but this model has no chat template: give --chat-template FILE")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise InputError(f'{place}: "tools" is not JSON: {error}') from error
    try:
        whole = _text(tokenizer, turns, tools, add_generation_prompt=False)
        asked = _text(tokenizer, turns[:-1], tools, add_generation_prompt=True)
    except Exception as error:  # whatever a template raises
        raise InputError(f"{place}: the chat template cannot take this: {' '.join(str(error).split())}") from error
    # Some templates open the answer otherwise where one is to be written than where it is there.
    same = next((place for place, (a, b) in enumerate(zip(asked, whole, strict=False)) if a != b), len(asked))
    prompt, answer = whole[:same], whole[same:]
    said = (turns[-1].get("content") or "").strip()
    start = answer.rfind(said) if said else -1
    cut = len(answer) if start < 0 else start + len(said)
    return Rendered(prompt, answer[:cut], answer[cut:])


def assistant_tokens(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], place: str
) -> tuple[list[int], list[int]]:
    """The tokens of a conversation, and which of them an assistant said (1) in any turn.

    Raises:
        InputError: naming ``place``, if the template does not tell.
    """
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    template = tokenizer.chat_template
    if not has_generation_markers(template):
        try:
            template = get_training_chat_template(tokenizer)
        except ValueError as error:
            raise InputError(
                "--set assistant_only_loss: this chat template does not mark what the assistant says; give one with "
                "{% generation %} by --chat-template"
            ) from error
    try:
        found: Any = tokenizer.apply_chat_template(
            [dict(turn) for turn in turns],
            chat_template=template,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
    except Exception as error:  # whatever a template raises
        raise InputError(f"{place}: the chat template cannot take this: {' '.join(str(error).split())}") from error
    return found["input_ids"], found["assistant_masks"]


def _text(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], tools: Any, *, add_generation_prompt: bool) -> str:
    return str(
        tokenizer.apply_chat_template(
            [dict(turn) for turn in turns], tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    )


def _turns(value: Any, key: str, place: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise InputError(f'{place}: "{key}" must be a list of turns, each with "role" and "content"')
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            raise InputError(f'{place}: turn {number} of "{key}" has no "role"')
        content = turn.get("content")
        if not isinstance(content, str) and not (content is None and turn.get("tool_calls")):
            raise InputError(
                f'{place}: turn {number} of "{key}": "content" must be text, found {type(content).__name__}'
            )
    return value
