"""Texts as token ids, with the positions whose next-token distribution is measured; and batches of them.

Knows the tokenizer, not the model. A passage is read as the tokenizer gives it, its own special tokens (a
beginning-of-sequence token) included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.prompts import qa_prompt
from knowshift.generate.encode import common_prefix


@dataclass(frozen=True, slots=True)
class Passage:
    """What a model reads at once: a fact, or a window of a text.

    Attributes:
        ids: the tokens the model reads.
        kept: at how many of the last of them its prediction is measured.
        targets: for each of these, the token that truly follows; empty where nothing is given to follow.
        answer: how many of the last targets, an end token aside, belong to the answer; those before are the
            prompt's own.
        end: 1 if the last target is the end token, else 0. Predicting it is knowing the form, not the fact.
    """

    ids: tuple[int, ...]
    kept: int
    targets: tuple[int, ...] = ()
    answer: int = 0
    end: int = 0


def gold_passages(tokenizer: Any, facts: Sequence[Fact]) -> list[Passage]:
    """Each fact's trained prompt with its preferred answer and the end token, every position measured.

    As in training, the answer's tokens are those of prompt and answer together from where they part from the
    tokens of the prompt alone. A tokenizer without an end token leaves it out.

    Raises:
        InputError: naming a fact whose prompt or answer is no token at all.
    """
    prompts = [qa_prompt(fact.question) for fact in facts]
    whole = [prompt + fact.answers[0] for prompt, fact in zip(prompts, facts, strict=True)]
    end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    passages = []
    for fact, prompt, ids in zip(facts, encode(tokenizer, prompts), encode(tokenizer, whole), strict=True):
        start = common_prefix(prompt, ids)
        if start == len(ids):
            raise InputError(f"fact {fact.id!r}: the answer {fact.answers[0]!r} is no token at all")
        if not start:
            raise InputError(f"fact {fact.id!r}: the prompt is no token at all")
        # Some tokenizers end every text themselves; a second end token would be one that nobody trained.
        targets = ids[1:] if ids[-1:] == end else ids[1:] + end
        answer = len(targets) - (start - 1) - len(end)
        if not answer:
            raise InputError(f"fact {fact.id!r}: the answer {fact.answers[0]!r} is no token at all")
        passages.append(Passage(ids[: len(targets)], len(targets), targets, answer, len(end)))
    return passages


def prompt_passages(tokenizer: Any, facts: Sequence[Fact], prompts: Sequence[str]) -> list[Passage]:
    """Each fact's prompt, measured where the answer would begin: an end token that the tokenizer adds is left out.

    Raises:
        InputError: naming a fact whose prompt is no token at all.
    """
    passages = []
    for fact, ids in zip(facts, encode(tokenizer, prompts), strict=True):
        if ids[-1:] == (tokenizer.eos_token_id,):
            ids = ids[:-1]
        if not ids:
            raise InputError(f"fact {fact.id!r}: the prompt is no token at all")
        passages.append(Passage(ids, 1))
    return passages


def check_fit(passages: Sequence[Passage], names: Sequence[str], *, context: int | None, rows: int) -> None:
    """Make sure that a model can read the passages.

    Args:
        passages: what it is to read.
        names: of each, for the one that does not fit: "fact 'a'".
        context: the most tokens the model reads; None if it has no limit.
        rows: tokens the model has an embedding for.

    Raises:
        InputError: naming the first that does not fit.
    """
    for name, passage in zip(names, passages, strict=True):
        if context is not None and len(passage.ids) > context:
            raise InputError(f"{name}: {len(passage.ids)} tokens do not fit the model's context of {context}")
        largest = max(passage.ids + passage.targets)
        if largest >= rows:
            raise InputError(f"{name}: token {largest} is beyond the model's {rows} vocabulary rows")


def batches(reads: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Indices of what is read together: the longest first, like lengths together, ``tokens`` with padding."""
    order = sorted(range(len(reads)), key=lambda index: (-len(reads[index]), index))
    grouped: list[list[int]] = []
    for index in order:
        if not grouped or len(reads[grouped[-1][0]]) * (len(grouped[-1]) + 1) > tokens:
            grouped.append([])
        grouped[-1].append(index)
    return grouped


def encode(
    tokenizer: Any, texts: Sequence[str], *, what: str = "these facts", special: bool = True
) -> list[tuple[int, ...]]:
    """Token ids of each text; ``special`` adds the tokenizer's own tokens around it.

    Raises:
        InputError: saying that ``what`` cannot be read.
    """
    try:
        # Without a word on texts longer than the context: whether they fit is looked at where it matters.
        return [tuple(ids) for ids in tokenizer(list(texts), add_special_tokens=special, verbose=False).input_ids]
    except Exception as error:  # the tokenizers library raises bare Exception on a word it has no token for
        raise InputError(f"the tokenizer cannot read {what}: {error}") from error
