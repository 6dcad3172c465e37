"""Continuations that are given beforehand: read right behind their prompts, for the log-probability of their tokens.

Knows token ids and logits; not the model, nor what the continuations mean.
"""

from collections.abc import Iterator, Sequence

import torch

from knowshift.errors import InputError


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
            (members, length + longest) token ids, and the longest.
        """
        width = self.longest(members)
        rows = [
            [*prompt, *self._ids[index], *[0] * (width - self.tokens(index))]
            for prompt, index in zip(prompts, members, strict=True)
        ]
        return torch.tensor(rows), width

    def take(self, members: Sequence[int], logits: torch.Tensor) -> None:
        """Read the log-probabilities of ``members`` off (members, at least 1 + longest, vocabulary) logits.

        Raises:
            InputError: if one is not finite.
        """
        width = self.longest(members)
        if not width:
            return
        logits = logits[:, -1 - width : -1].float()
        padded = [self._ids[index] + [0] * (width - self.tokens(index)) for index in members]
        targets = torch.tensor(padded, device=logits.device)
        found = logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(-1)
        for index, row in zip(members, found.double().cpu(), strict=True):
            total = row[: self.tokens(index)].sum()
            if not total.isfinite():
                raise InputError("the model's logits are not finite: its weights are damaged")
            self.log_probs[index] = float(total)
