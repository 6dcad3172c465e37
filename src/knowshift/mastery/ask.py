"""How a fact is asked: its prompts, what counts as right, and the name of each prompt in the store.

Knows wording and matching; not who answers, and not what has been answered before.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from pydantic import Field

from knowshift.facts.fact import Fact
from knowshift.facts.matching import Matcher, accepted
from knowshift.facts.templates import FORMS, templates_for, topics
from knowshift.generate.engine import Prompt
from knowshift.settings import Settings


class MasteryOptions(Settings):
    """How facts are asked; the defaults are the paper's."""

    templates: int = Field(default=FORMS, ge=1, le=FORMS, description="phrasings asked for each fact")
    samples: int = Field(default=10, ge=1, description="completions drawn for each phrasing")
    temperature: float = Field(default=0.7, gt=0, allow_inf_nan=False)
    max_new_tokens: int = Field(default=32, ge=1)
    seed: int = 0
    case_sensitive: bool = Field(default=False, description="an answer in other capitals does not count")
    chat: bool = Field(default=False, description="ask through the model's chat template")
    slick: bool = Field(default=True, description="also continue each phrasing greedily, for the SliCK classes")
    rows: int | None = Field(
        default=None, ge=1, description="continuations decoded together; by default the engine's own"
    )

    @property
    def trials(self) -> int:
        """Completions drawn for each fact."""
        return self.templates * self.samples


@dataclass(frozen=True)
class Asked:
    """One fact, ready to be asked.

    Attributes:
        prompts: one for each phrasing, in the order of the templates.
        keys: (phrasings, 2) numbers of 64 bits: the name of each prompt in the store.
        answers: what is accepted, other names apart.
        case_sensitive: whether capitals count.
    """

    prompts: list[Prompt]
    keys: npt.NDArray[np.uint64]
    answers: tuple[str, ...]
    case_sensitive: bool

    @cached_property
    def matcher(self) -> Matcher:
        """What counts as right; made when first asked for, since facts that lack no draws need none."""
        return Matcher(self.answers, case_sensitive=self.case_sensitive)


def ask(fact: Fact, options: MasteryOptions) -> Asked:
    """Put one fact into words."""
    prompts = prompts_of(fact, options)
    return Asked(prompts, prompt_keys(fact, prompts, options), fact.answers, options.case_sensitive)


def prompts_of(fact: Fact, options: MasteryOptions) -> list[Prompt]:
    """The fact's prompts, in the order of the templates."""
    texts = templates_for(fact)[: options.templates]
    return [_prompt(fact, index, text, options.chat) for index, text in enumerate(texts)]


def prompt_keys(fact: Fact, prompts: Sequence[Prompt], options: MasteryOptions) -> npt.NDArray[np.uint64]:
    """128-bit digests of everything about a prompt that decides its draws and their verdicts.

    The accepted names are part of it because a draw ends where they are found, and the fact's own answers because
    they are found in other places than their other names. How many draws are wanted is not:
    more of them are added to those that are there.
    """
    common = hashlib.blake2b(_packed(fact.answers, accepted(fact.answers), options.case_sensitive), digest_size=16)
    digests = []
    for prompt in prompts:
        own = common.copy()
        own.update(_packed(prompt.key, prompt.text, prompt.user))
        digests.append(own.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64).reshape(-1, 2)


def _prompt(fact: Fact, index: int, text: str, chat: bool) -> Prompt:
    """With ``chat``, a cloze prefix opens the assistant's turn; any other phrasing is the user's message itself."""
    key = f"{fact.id}\x1f{index}"
    if not chat:
        return Prompt(text, key)
    cloze = fact.topic in topics() and bool(fact.subject)
    return Prompt(text, key, user=fact.question) if cloze else Prompt("", key, user=text)


def _packed(*values: object) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode("utf-8")
