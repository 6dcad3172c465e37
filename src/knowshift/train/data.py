"""Training data: prompt/completion JSONL, checked against the tokenizer and the model's context.

What becomes of a pair (end token, masking of the prompt) is TRL's business; this file makes sure that nothing is
silently cut off, dropped or left without an answer to learn from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from knowshift.errors import InputError
from knowshift.facts.fact import read_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with the completion to learn, and the line it stands on."""

    prompt: str
    completion: str
    line: int


def read_pairs(path: Path) -> list[Pair]:
    """Read a JSONL file of ``prompt`` and ``completion``; other keys are ignored.

    Raises:
        InputError: naming file and line: not JSON, a key missing, not text or blank; or the file has no line.
    """
    pairs = []
    for number, row in read_rows(path):
        for key in ("prompt", "completion"):
            if key not in row:
                raise InputError(f'{path}:{number}: "{key}" is missing; a line needs "prompt" and "completion"')
            if not isinstance(row[key], str):
                raise InputError(f'{path}:{number}: "{key}" must be text, found {type(row[key]).__name__}')
            if not row[key].strip():
                raise InputError(f'{path}:{number}: "{key}" is empty')
        pairs.append(Pair(row["prompt"], row["completion"], number))
    if not pairs:
        raise InputError(f"{path}: no training examples in this file")
    return pairs


def check_pairs(path: Path, pairs: list[Pair], tokenizer: PreTrainedTokenizerBase, context: int) -> int:
    """Make sure every pair fits into ``context`` tokens with its end token.

    Returns:
        How many pairs are split differently by the tokenizer when prompt and completion are joined, so that the
        model learns to continue another prompt than it will be asked (end the prompt on a token boundary).

    Raises:
        InputError: naming file and line of a pair that does not fit, or a tokenizer without an end token.
    """
    if tokenizer.eos_token is None:
        raise InputError("the model's tokenizer has no end-of-sequence token, so an end cannot be learned")
    prompts = tokenizer([pair.prompt for pair in pairs])["input_ids"]
    wholes = tokenizer([pair.prompt + _ended(pair.completion, tokenizer.eos_token) for pair in pairs])["input_ids"]
    merged = 0
    for pair, prompt, whole in zip(pairs, prompts, wholes, strict=True):
        if len(whole) > context:
            raise InputError(
                f"{path}:{pair.line}: prompt and completion are {len(whole)} tokens, the model's context is {context}"
            )
        merged += whole[: len(prompt)] != prompt
    return merged


def to_dataset(pairs: list[Pair]) -> Dataset:
    """The pairs as TRL's prompt-completion format."""
    from datasets import Dataset

    return Dataset.from_dict(
        {"prompt": [pair.prompt for pair in pairs], "completion": [pair.completion for pair in pairs]}
    )


def _ended(completion: str, end: str) -> str:
    return completion if completion.endswith(end) else completion + end
