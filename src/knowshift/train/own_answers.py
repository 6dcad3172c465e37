"""What the base answers before it is trained: to prompts as they stand, or to a task with its solution shown.

Knows engines and texts; not which examples an answer is for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from knowshift.generate.engine import Completion, Prompt
from knowshift.progress import bar
from knowshift.train import processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Fixed, so that an answer does not depend on the memory that happens to be free.
ROWS = 64

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)|(?<=\S)(?=\n)")


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    lines: Collection[int] = (),
    whole: bool = True,
) -> list[str]:
    """One answer to each prompt, as the text goes on there, empty where there was none.

    Of several processes the first asks for all.

    With ``whole``, an answer that was cut off by ``max_new_tokens`` ends with its last whole sentence, since an end
    would otherwise be learned where none was.

    Args:
        temperature: 0 takes the most likely token each time.
        lines: numbers of the prompts whose answers end with their first line.
    """
    said: list[str] = []
    if processes.leads() and prompts:
        drawn = _asked(model, tokenizer, prompts, temperature, max_new_tokens, seed)
        said = [ended(each, line=number in lines) if whole else each.text for number, each in enumerate(drawn)]
    if processes.count() > 1:
        from accelerate.utils import broadcast_object_list

        box = [said]
        broadcast_object_list(box)
        said = box[0]
    return said


def rewriting(prompt: str, completion: str, key: str, *, chat: bool) -> Prompt:
    """What asks for ``completion`` in the model's own words: a chat model by its template, another by a text."""
    if chat:
        return Prompt(
            "",
            key,
            user=f"Here is a task, and an answer to it that is right.\n\nTask: {prompt}\n\nAnswer: {completion}\n\n"
            "Answer the task yourself, in your own words. Give the answer alone.",
        )
    return Prompt(f"Task: {prompt}\nRight answer: {completion}\nThe same answer in my own words:", key)


def ended(completion: Completion, *, line: bool = False) -> str:
    """The text up to where the model ended it (with ``line``, also by a new line), or to its last whole sentence."""
    text = completion.text.rstrip()
    first, new_line, _ = text.lstrip().partition("\n")
    if line and new_line:
        return first.rstrip()
    if completion.finish != "length":
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].rstrip() if ends else ""


def _asked(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], temperature: float, max_new_tokens: int, seed: int
) -> list[Completion]:
    from knowshift.generate.transformers_engine import TransformersEngine

    with _attention_kept(model), bar("The base's own answers", len(prompts)) as advance:
        engine = TransformersEngine(model, tokenizer, rows=ROWS)
        if temperature == 0:
            return engine.greedy(prompts, max_new_tokens=max_new_tokens, advance=advance)
        drawn = engine.sample(
            prompts, samples=1, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed, advance=advance
        )
        return [each for (each,) in drawn]


@contextmanager
def _attention_kept(model: Any) -> Iterator[None]:
    """Engines choose an attention of their own, which training must not inherit."""
    usual = model.config._attn_implementation
    try:
        yield
    finally:
        if model.config._attn_implementation != usual:
            model.set_attn_implementation(usual)
