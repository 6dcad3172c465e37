"""Prompts as token ids, alike for every engine. Knows tokenizers and chat templates, not models."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from knowshift.errors import InputError
from knowshift.generate.engine import Prompt


def encode(tokenizer: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids of each prompt, special tokens as the tokenizer or the chat template sets them.

    Raises:
        InputError: if a prompt is no token at all, cannot be read, or the tokenizer has no chat template that works.
    """
    texts = [chat_text(tokenizer, prompt) for prompt in prompts]
    encoded: list[list[int]] = [[] for _ in prompts]
    for chat in (False, True):  # a chat template writes its special tokens out, so none may be added again
        members = [index for index, prompt in enumerate(prompts) if (prompt.user is not None) == chat]
        if members:
            try:
                asked = [texts[index] for index in members]
                ids = tokenizer(asked, add_special_tokens=not chat, verbose=False).input_ids  # no word on long ones
            except Exception as error:  # the tokenizers library raises bare Exception on a word it has no token for
                raise InputError(f"the tokenizer cannot read the prompts: {error}") from error
            for index, own in zip(members, ids, strict=True):
                encoded[index] = list(own)
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not ids:
            raise InputError(f"a prompt that is no token at all: {prompt.text!r}")
    return encoded


def continuations(tokenizer: Any, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[list[int]]:
    """The token ids with which each prompt goes on, where it goes on with the text of its answer.

    They are what prompt and answer together have beyond the prompt. Where a token would span both, so that the
    prompt's own ids would be others, the answer is spelled on its own: that is how a model that was asked by these ids
    would have to say it. An answer that is no token at all comes out empty.
    """
    ends = (tokenizer.eos_token_id,)
    whole = [replace(prompt, text=prompt.text + answer) for prompt, answer in zip(prompts, answers, strict=True)]
    found = []
    for asked, both, answer in zip(encode(tokenizer, prompts), encode(tokenizer, whole), answers, strict=True):
        if both[: len(asked)] != asked:
            both = asked + list(tokenizer(answer, add_special_tokens=False).input_ids)
        own = both[len(asked) :]
        found.append(own[:-1] if tuple(own[-1:]) == ends else own)  # some tokenizers end every text themselves
    return found


def chat_text(tokenizer: Any, prompt: Prompt) -> str:
    """The text the model continues: the prompt's own, or with ``user`` what the chat template makes of it.

    Raises:
        InputError: if there is no chat template, or it fails.
    """
    if prompt.user is None:
        return prompt.text
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("the model's tokenizer has no chat template")
    turn = [{"role": "user", "content": prompt.user}]
    try:
        opened: str = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program: it may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"the model's chat template fails: {reason}") from error
    return opened + prompt.text


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))
