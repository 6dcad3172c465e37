"""Who answers: the one protocol that scoring and evaluation speak to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to continue. ``key`` names its random draws, so it must be unique within a run."""

    text: str
    key: str


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
    """Continues texts with one model."""

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        samples: int,
        temperature: float,
        max_new_tokens: int,
        seed: int,
        stop: Callable[[int, str], bool] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[Completion]]:
        """``samples`` independent draws for each prompt.

        ``stop(index, text)`` says whether a draw for ``prompts[index]`` may end with ``text``; ``advance(n)`` is
        told whenever ``n`` more prompts are finished.
        """
        ...

    def greedy(
        self, prompts: Sequence[str], *, max_new_tokens: int, advance: Callable[[int], None] | None = None
    ) -> list[Completion]:
        """The most likely continuation of each text, token by token."""
        ...
