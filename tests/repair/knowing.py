"""An engine that says by heart what it was given to say, token by token, under the stop test and the token limit.

What models know and lose can so be planted, without a model.
"""

from collections.abc import Callable

import tiny
from knowshift.generate.encode import encode
from knowshift.generate.engine import Completion, Prompt, as_prompts


def question(prompt: Prompt) -> str:
    """What is asked last in a prompt, in whatever form."""
    if prompt.user is not None:
        return prompt.user
    return prompt.text.rpartition("Question: ")[2].removesuffix("\nAnswer:")


class Knowing:
    """Says ``says(question)`` and then ends; gives a completion -1 nat a token where it says it, else -3."""

    rows, context, dtype = 8, 0, "float32"

    def __init__(self, says: Callable[[str], str]) -> None:
        self.says = says
        self.tokenizer = tiny.tokenizer()
        self.asked: list[str] = []
        self.prompts: list[Prompt] = []
        self.tokens = 0

    def answer(self, prompts, given, *, max_new_tokens, stop=None, advance=None):
        prompts = as_prompts(prompts)
        encode(self.tokenizer, prompts)
        answered = []
        for index, (prompt, ids) in enumerate(zip(prompts, given, strict=True)):
            self.asked.append(question(prompt))
            self.prompts.append(prompt)
            text = self.says(question(prompt))
            completion = self._say(text, index, max_new_tokens, stop)
            right = self.tokenizer.decode(ids).strip()
            answered.append((completion, len(ids) * (-1.0 if right in text else -3.0)))
        if advance is not None:
            advance(len(prompts))
        return answered

    def _say(self, text, index, limit, stop):
        ids = [*self.tokenizer(text, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id]
        for count in range(1, len(ids) + 1):
            self.tokens += 1
            said = self.tokenizer.decode(ids[:count], skip_special_tokens=True)
            if count == len(ids):
                return Completion(said, count, "eos")
            if stop is not None and stop(index, said):
                return Completion(said, count, "stop")
            if count == limit:
                return Completion(said, count, "length")
        raise AssertionError
