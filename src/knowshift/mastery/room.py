"""Can the model read every prompt? Asked before the first draw, so that no run ends after hours in a long question.

Knows facts and how long their prompts may be; tokens are the tokenizer's.
"""

from collections.abc import Sequence

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.generate.encode import chat_text, encode
from knowshift.generate.engine import Engine
from knowshift.mastery.ask import MasteryOptions, prompts_of

# Tokens that a tokenizer may set around a text.
AROUND = 16


def check_room(engine: Engine, facts: Sequence[Fact], options: MasteryOptions) -> None:
    """Make sure that each prompt and its new tokens pass through the model, and the chat template works.

    A token stands for a byte of UTF-8 or more, so only prompts with more bytes than there is room for tokens are read
    by the tokenizer, and a chat template is tried on the first prompt alone.

    Raises:
        InputError: naming the first fact that has too long a prompt, and what to do.
    """
    around = AROUND
    if options.chat:
        first = prompts_of(facts[0], options)[0]
        around += _bytes(chat_text(engine.tokenizer, first)) - _bytes(first.text) - _bytes(first.user or "")
    if not engine.context:
        return
    room = engine.context - options.max_new_tokens
    for fact in facts:
        prompts = prompts_of(fact, options)
        long = [prompt for prompt in prompts if _bytes(prompt.text) + _bytes(prompt.user or "") + around > room]
        longest = max(map(len, encode(engine.tokenizer, long)), default=0)
        if longest > room:
            lower = f"lower --max-new-tokens to {engine.context - longest} or " if longest < engine.context else ""
            raise InputError(
                f"fact {fact.id!r}: a prompt of {longest} tokens and {options.max_new_tokens} new ones pass the "
                f"model's context of {engine.context}: {lower}leave the fact out"
            )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
