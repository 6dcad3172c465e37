"""The user's task: prompts with the completions that are right, asked and scored one by one.

What an item scores does not depend on which others are asked with it, so that subsets can grow and pair. Knows text
and the engine; not parts or candidates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from knowshift.errors import InputError
from knowshift.files import digest_of
from knowshift.generate.encode import continuations
from knowshift.generate.engine import Engine, Prompt
from knowshift.progress import bar
from knowshift.train.data import Pair, read_pairs

Metric = Literal["exact", "contains", "log-likelihood"]
METRICS: tuple[Metric, ...] = get_args(Metric)
SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "text": pl.String,
    "right": pl.Boolean,
    "score": pl.Float64,
    "log_prob": pl.Float64,
    "tokens": pl.Int32,
}
# Tokens that an answer may be longer than the right one.
ROOM = 8


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a task.

    Attributes:
        id: of what is asked, whatever its completions.
        prompt: to be continued.
        completions: those that count as right, each once, in the file's order.
        place: of its first line, such as ``task.jsonl:12``.
    """

    id: str
    prompt: Prompt
    completions: tuple[str, ...]
    place: str

    @property
    def asked(self) -> str:
        """What is asked, as the user wrote it."""
        return self.prompt.text if self.prompt.user is None else self.prompt.user


def read_task(path: Path) -> list[Item]:
    """The items of a JSONL file of ``prompt`` and ``completion``, or of conversations of one question.

    A prompt that stands on several lines is one item: each completion counts as right, the first is the preferred one.

    Raises:
        InputError: naming file and line of what is malformed, or a conversation of more than one question.
    """
    found: dict[Prompt, dict[str, None]] = {}
    places: dict[Prompt, str] = {}
    for pair in read_pairs(path):
        place = f"{path}:{pair.line}"
        prompt, completion = _asked(pair, place)
        found.setdefault(prompt, {})[completion] = None
        places.setdefault(prompt, place)
    return [
        Item(digest_of([prompt.text, prompt.user])[:16], prompt, tuple(completions), places[prompt])
        for prompt, completions in found.items()
    ]


def ask(engine: Engine, items: Sequence[Item], metric: Metric) -> pl.DataFrame:
    """Put every item to the model once, greedily.

    Returns:
        One row an item, in their order: id, text (what the model says; null for log-likelihood, where it says
        nothing), right (null likewise), score (1 or 0, or ``log_prob``), log_prob (of the preferred completion after
        the prompt, in nats per token, without an end token), tokens (of that completion). ``exact``: the text is a
        right completion, white space at the ends aside. ``contains``: it has one in it, white space counting as one
        blank; capitals matter in both.

    Raises:
        InputError: for an unknown metric, a completion that is no token at all, or what the engine refuses.
    """
    if metric not in METRICS:
        raise InputError(f"--task-metric {metric}: not one of {', '.join(METRICS)}")
    end = engine.tokenizer.eos_token or ""
    rights = [
        [completion.removesuffix(end) if end else completion for completion in item.completions] for item in items
    ]
    gold = continuations(engine.tokenizer, [item.prompt for item in items], [own[0] for own in rights])
    for item, ids, own in zip(items, gold, rights, strict=True):
        if not ids or not all(right.strip() for right in own):
            raise InputError(f"{item.place}: the completion is no token at all")
    # The limit on an answer is told by its own item, so items are asked in groups of one limit.
    groups: dict[int, list[int]] = {}
    for index, own in enumerate(rights):
        longest = max([len(gold[index]), *(_tokens(engine, text) for text in own[1:])])
        limit = 1 if metric == "log-likelihood" else 1 << (longest + ROOM - 1).bit_length()
        groups.setdefault(limit, []).append(index)
    rows: list[dict[str, Any]] = [{}] * len(items)
    with bar("asking the task", len(items)) as advance:
        for limit, members in sorted(groups.items()):
            judges = [_Judge(metric, rights[index]) for index in members]
            answered = engine.answer(
                [items[index].prompt for index in members],
                [gold[index] for index in members],
                max_new_tokens=limit,
                stop=None if metric == "log-likelihood" else _stop(judges),
                advance=advance,
            )
            for index, judge, (completion, log_prob) in zip(members, judges, answered, strict=True):
                each = log_prob / len(gold[index])
                right = None if metric == "log-likelihood" else judge.right(completion.text)
                rows[index] = {
                    "id": items[index].id,
                    "text": None if right is None else completion.text,
                    "right": right,
                    "score": each if right is None else float(right),
                    "log_prob": each,
                    "tokens": len(gold[index]),
                }
    return pl.DataFrame(rows, schema=SCHEMA)


class _Judge:
    """Is a text right, and is there no use in reading on?"""

    def __init__(self, metric: Metric, rights: Sequence[str]) -> None:
        self._exact = metric == "exact"
        self._rights = [right.strip() if self._exact else " ".join(right.split()) for right in rights]
        self._bare = ["".join(right.split()) for right in rights]

    def right(self, text: str) -> bool:
        if self._exact:
            return text.strip() in self._rights
        whole = " ".join(text.split())
        return any(right in whole for right in self._rights)

    def settled(self, text: str) -> bool:
        """Whether nothing that may follow changes the verdict: never in doubt, only ever late."""
        if not self._exact:
            return self.right(text)
        # A character may be half decoded, and some tokenizers take back a blank when they see what follows it.
        begun = "".join(text.rstrip("\ufffd").split())
        return not any(bare.startswith(begun) for bare in self._bare)


def _stop(judges: Sequence[_Judge]) -> Callable[[int, str], bool]:
    return lambda index, text: judges[index].settled(text)


def _asked(pair: Pair, place: str) -> tuple[Prompt, str]:
    """What is asked, and what is right; raises an InputError for a longer conversation."""
    if not pair.turns:
        return Prompt(pair.prompt, key=""), pair.completion
    roles = [turn["role"] for turn in pair.turns]
    contents = [turn.get("content") for turn in pair.turns]
    if roles != ["user", "assistant"] or not all(isinstance(content, str) for content in contents) or pair.tools:
        raise InputError(f"{place}: a task's conversation is one question of the user and the assistant's answer")
    return Prompt("", key="", user=str(contents[0])), str(contents[1])


def _tokens(engine: Engine, text: str) -> int:
    return len(engine.tokenizer(text, add_special_tokens=False).input_ids)
