"""Who answers: the one protocol that scoring and evaluation speak to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from knowshift.errors import InputError


class NotFinite(InputError):
    """A model's logits are NaN or infinite; an engine says of which model."""

    def __init__(self, found: str, model: str = "") -> None:
        super().__init__(f"{model}: " * bool(model) + f"the model's logits are {found}: its weights are damaged")
        self.found = found


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to continue.

    Attributes:
        text: what the model continues, as it stands.
        key: names the random draws made for it, so it must be unique within a run.
        user: if given, the prompt goes through the model's chat template: this is the user's message, and ``text``
            is how the assistant's turn begins (it may be empty).
    """

    text: str
    key: str
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One continuation.

    Attributes:
        text: the continuation alone, special tokens left out.
        tokens: how many tokens were decoded, an end-of-sequence token included.
        finish: ``stop`` (the stop test was met), ``eos`` (the model ended) or ``length``.
    """

    text: str
    tokens: int
    finish: str


class Engine(Protocol):
    """Continues texts with one model.

    Attributes:
        rows: about how many continuations are decoded together. What is decoded together shows in the last bits of a
            matrix product, so whoever goes on with an interrupted run sets the number that run began with.
        context: the most tokens that the model reads, new ones included; 0 where no limit is known.
        dtype: the number type it computes in, such as ``bfloat16``.
        tokenizer: what makes a prompt's token ids (``encode``).
    """

    rows: int
    context: int
    dtype: str
    tokenizer: Any

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        samples: int,
        temperature: float,
        max_new_tokens: int,
        seed: int,
        first: int = 0,
        greedy: bool = False,
        stop: Callable[[int, str], bool] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[Completion]]:
        """Independent draws for each prompt: numbers ``first`` to ``first + samples - 1`` of its stream.

        Draw j of a prompt depends on (seed, key, j) alone, so more draws can be added to earlier ones. With
        ``greedy`` the most likely continuation, token by token, follows a prompt's draws as one completion more.

        ``stop(index, text)`` says whether a draw for ``prompts[index]`` may end with ``text``; ``advance(n)`` is
        told whenever ``n`` more prompts are finished.
        """
        ...

    def greedy(
        self, prompts: Sequence[str | Prompt], *, max_new_tokens: int, advance: Callable[[int], None] | None = None
    ) -> list[Completion]:
        """The most likely continuation of each prompt, token by token."""
        ...

    def answer(
        self,
        prompts: Sequence[str | Prompt],
        given: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Callable[[int, str], bool] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> list[tuple[Completion, float]]:
        """The ``greedy`` continuation of each prompt, and the log-probability in nats of the one that is ``given``.

        ``given`` holds token ids, at least one for each prompt (``encode.continuations``); ``stop`` is as in
        ``sample``.
        """
        ...


def as_prompts(texts: Sequence[str | Prompt]) -> list[Prompt]:
    """Texts as prompts that need no key, since nothing is drawn for them."""
    return [Prompt(text, key="") if isinstance(text, str) else text for text in texts]
