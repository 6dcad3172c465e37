"""Continuations that are given beforehand: read right behind their prompts, for the log-probability of their tokens.

Knows token ids and logits; not the model, nor what the continuations mean.
"""

from collections.abc import Iterator, Sequence

import torch

from knowshift.generate.engine import NotFinite

# Rows of logits that are widened to float32 at once.
PART = 64


class Given:
    """One continuation for each prompt, by its index; an empty one is not measured.

    Attributes:
        log_probs: of each continuation after its prompt, in nats, summed over its tokens, once it was taken.
    """

    def __init__(self, ids: Sequence[Sequence[int]]) -> None:
        self._ids = [list(own) for own in ids]
        self.log_probs = [0.0] * len(self._ids)

    def tokens(self, index: int) -> int:
        """How many tokens the continuation of one prompt has."""
        return len(self._ids[index])

    def read(self, index: int) -> list[int]:
        """What of one continuation is read behind its prompt: all but its last token, which predicts no more of it."""
        return self._ids[index][:-1]

    def longest(self, members: Sequence[int]) -> int:
        """The most tokens that one of ``members`` has."""
        return max((self.tokens(index) for index in members), default=0)

    def parts(self, members: Sequence[int], positions: int) -> Iterator[list[int]]:
        """``members`` in turn, as many together as have at most ``positions`` rows of logits."""
        part: list[int] = []
        for index in members:
            if part and (len(part) + 1) * (1 + self.longest([*part, index])) > positions:
                yield part
                part = []
            part.append(index)
        if part:
            yield part

    def behind(self, prompts: Sequence[Sequence[int]], members: Sequence[int]) -> tuple[torch.Tensor, int]:
        """Prompts of one length with the continuations of ``members`` behind them, padded at the end.

        Nothing in a causal model looks to the right, so the padding is seen by none of the tokens.

        Returns:
            (members, length + most read behind) token ids, and how many that are.
        """
        width = max(len(self.read(index)) for index in members)
        rows = [
            [*prompt, *self.read(index), *[0] * (width - len(self.read(index)))]
            for prompt, index in zip(prompts, members, strict=True)
        ]
        return torch.tensor(rows), width

    def taken(self, members: Sequence[int], width: int) -> list[int]:
        """Of (members, 1 + ``width``) rows of logits, flat, those that ``take`` wants."""
        numbers = enumerate(members)
        return [row * (1 + width) + place for row, index in numbers for place in range(self.tokens(index))]

    def take(self, members: Sequence[int], logits: torch.Tensor) -> None:
        """Read the log-probabilities of ``members`` off their logits, (tokens of all in turn, vocabulary).

        Raises:
            NotFinite: if one is not finite.
        """
        sizes = [self.tokens(index) for index in members]
        targets = torch.tensor([token for index in members for token in self._ids[index]], device=logits.device)
        if not len(targets):
            return
        parts = zip(torch.split(logits, PART), torch.split(targets, PART), strict=True)
        found = torch.cat([_log_probs(*part) for part in parts]).cpu()
        for index, own in zip(members, torch.split(found, sizes), strict=True):
            if not own.sum().isfinite():
                raise NotFinite("not finite")
            self.log_probs[index] = float(own.sum())


def _log_probs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = logits.float()
    return (logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)).double()
