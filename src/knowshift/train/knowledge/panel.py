"""The panel: facts that the base answers by itself, or texts it reads, with what it said about them.

A fact is known when, after its prompt, every token of the preferred answer is the model's most likely next one: greedy
decoding would say the answer, and one pass over prompt and answer together finds that out. Solved examples before the
question (the form `few-shot`) tell a model what an answer looks like, so that knowledge is seen where the form was
never taught, and still is seen where fine-tuning taught another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch

from knowshift.errors import InputError
from knowshift.facts.fact import Fact, build
from knowshift.facts.sources import read_facts
from knowshift.generate.encode import continuations, encode
from knowshift.measure.forms import continuation, put
from knowshift.measure.passages import Passage, check_fit
from knowshift.measure.texts import read_documents, text_passages
from knowshift.seeds import derive
from knowshift.train.knowledge.reading import answer_logits, common

Facts = str | Path | Sequence[Fact | Mapping[str, Any]]

# Solved examples, as many as an evaluation takes; of few facts a quarter.
SHOTS = 5
# Facts asked at most for each that the panel has room for.
ASKED = 8
# Facts asked together at least: one alone takes nearly as long.
LEAST = 8
# Tokens of one window of a text.
WINDOW = 128
# Bytes that the base's logits may take: panels over a large vocabulary have fewer windows.
ROOM = 1 << 28


@dataclass(frozen=True, slots=True)
class Panel:
    """What is read at every scoring, and the base's logits there.

    Attributes:
        names: the question of each fact, or the window of the text.
        passages: what is read; the tokens of the answers are measured.
        base: for each passage the base's (kept, vocabulary) logits, on the CPU.
        known: whether these are facts that the base knows.
        asked: how many facts were asked to find them, or how many windows were drawn from.
    """

    names: list[str]
    passages: list[Passage]
    base: list[torch.Tensor]
    known: bool
    asked: int


def make_panel(
    model: Any,
    tokenizer: Any,
    *,
    facts: Facts | None,
    text: Path | None,
    form: str,
    split: str | None,
    size: int,
    tokens: float,
    seed: int,
) -> Panel:
    """Ask the base, which is ``model`` as it is now, about facts or have it read a text.

    With few ``tokens`` to read fewer facts are asked, so that fewer are in the panel.

    Raises:
        InputError: nothing to ask, a tokenizer or model that cannot be asked so, or no fact that is known.
    """
    if facts is None:
        assert text is not None
        vocabulary = model.config.get_text_config().vocab_size
        return text_panel(model, *windows(tokenizer, text, size=size, vocabulary=vocabulary, seed=seed))
    chosen = as_facts(facts, split)
    names, passages = questions(tokenizer, chosen, form=form, most=ASKED * size, seed=seed)
    most = affordable([len(passage.ids) for passage in passages], common(passages), tokens)
    return fact_panel(model, names[:most], passages[:most], size=size)


def affordable(lengths: Sequence[int], shared: int, tokens: float) -> int:
    """How many passages can be read, in their order, at ``tokens``; what they share is read once."""
    read = shared
    for number, length in enumerate(lengths):
        read += length - shared
        if read > tokens and number >= 2 * LEAST:
            return number
    return len(lengths)


def as_facts(source: Facts, split: str | None = None) -> list[Fact]:
    """Facts from a source that ``read_facts`` knows, or from a list of facts or of mappings with their columns.

    Raises:
        InputError: no such source, no facts, or a malformed one.
    """
    if isinstance(source, str | Path):
        return read_facts(str(source), split=split)
    rows = [(f"[{index}]", row) for index, row in enumerate(source) if not isinstance(row, Fact)]
    built = iter(build("facts", ((place, dict(row)) for place, row in rows)) if rows else ())
    facts = [row if isinstance(row, Fact) else next(built) for row in source]
    facts = [fact for fact in facts if split is None or fact.split == split]
    if not facts:
        raise InputError("facts: none are given" + (f" in split {split!r}" if split else ""))
    return facts


def questions(
    tokenizer: Any, facts: Sequence[Fact], *, form: str, most: int, seed: int
) -> tuple[list[str], list[Passage]]:
    """The first ``most`` facts in an order drawn under ``seed``, as passages that end in their answers.

    Raises:
        InputError: a form that does not work with this tokenizer, or an answer that is no token at all.
    """
    order = sorted(facts, key=lambda fact: derive(seed, "panel", fact.id))
    shots: list[Fact] = []
    if form == "few-shot":
        shots = order[: min(SHOTS, len(order) // 4)]
        solved = {(fact.topic, fact.question) for fact in shots}
        order = [fact for fact in order if (fact.topic, fact.question) not in solved]
        form = "few-shot" if shots else "plain"  # of fewer than four facts, each is asked
    order = order[:most]
    prompts = [put(fact.question, form, shots) for fact in order]
    answers = continuations(tokenizer, prompts, [continuation(fact.answers[0], form) for fact in order])
    passages = []
    for fact, prompt, answer in zip(order, encode(tokenizer, prompts), answers, strict=True):
        if not answer:
            raise InputError(f"fact {fact.id!r}: the answer {fact.answers[0]!r} is no token at all")
        passages.append(Passage((*prompt, *answer[:-1]), len(answer), tuple(answer), len(answer)))
    return [fact.question for fact in order], passages


def windows(tokenizer: Any, path: Path, *, size: int, vocabulary: int, seed: int) -> tuple[list[str], list[Passage]]:
    """Up to ``size`` windows of a text, drawn under ``seed``; of prompts with completions only the completions count.

    Raises:
        InputError: naming file and line that cannot be read.
    """
    cut, items = text_passages(tokenizer, read_documents(path, tokenizer), WINDOW)
    order = sorted(range(len(cut)), key=lambda index: derive(seed, "panel", items[index].id))
    names: list[str] = []
    passages: list[Passage] = []
    room = ROOM // (4 * vocabulary)
    for window, item in ((cut[index], items[index]) for index in order):
        counted = window.answer + window.end
        if counted and len(passages) < size and (counted <= room or not passages):
            room -= counted
            names.append(f"{path.name}, window {item.id}")
            passages.append(Passage(window.ids, counted, window.targets[-counted:], window.answer, window.end))
    return names, passages


def fact_panel(model: Any, names: Sequence[str], passages: Sequence[Passage], *, size: int) -> Panel:
    """Ask the base until ``size`` facts are known or all were asked, and keep what it said.

    Raises:
        InputError: if it knows none of them.
    """
    _check(model, names, passages)
    found: list[int] = []
    asked = 0
    while len(found) < size and asked < len(passages):
        # As many as should do, by how many were known so far; at first half are taken to be.
        rate = max(1, len(found)) / asked if asked else 0.5
        part = passages[asked : asked + max(LEAST, min(2 * size, ceil((size - len(found)) / rate)))]
        found += [asked + index for index in sorted(_known(model, part))]
        asked += len(part)
    # Once more, read together as they will be at every scoring, so that rounding is no drift.
    kept = [passages[index] for index in found[:size]]
    again = _known(model, kept) if kept else {}
    if not again:
        raise InputError(
            f"none of the {asked} facts that were asked is known to the model before training, so none can be lost; "
            "choose other facts or another form"
        )
    order = sorted(again)
    return Panel(
        [names[found[index]] for index in order],
        [kept[index] for index in order],
        [again[index] for index in order],
        True,
        asked,
    )


def text_panel(model: Any, names: Sequence[str], passages: Sequence[Passage]) -> Panel:
    """What the base predicts in every window."""
    _check(model, names, passages)
    said = {index: logits.cpu() for index, logits in answer_logits(model, passages)}
    return Panel(list(names), list(passages), [said[index] for index in range(len(said))], False, len(passages))


def _known(model: Any, passages: Sequence[Passage]) -> dict[int, torch.Tensor]:
    """The logits of those passages whose targets are all the most likely tokens, by their index."""
    return {
        index: logits.cpu()
        for index, logits in answer_logits(model, passages)
        if tuple(logits.argmax(-1).tolist()) == passages[index].targets
    }


def _check(model: Any, names: Sequence[str], passages: Sequence[Passage]) -> None:
    config = model.config.get_text_config()
    context = int(getattr(config, "max_position_embeddings", None) or 0) or None
    check_fit(passages, [repr(name) for name in names], context=context, rows=config.vocab_size)
