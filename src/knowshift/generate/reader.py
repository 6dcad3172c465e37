"""Prompts read by a model: their next-token logits, their keys and values in slots, and what is given to follow them.

Where the architecture allows it, prompts are read packed, each with what is given behind it: every token that some of
them begin with in common is read once, nothing is padded, and logits are made for the positions that are asked for
alone. Otherwise prompts of one length are read together. Knows nothing of how prompts are continued.
"""

import inspect
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any

import torch
from transformers import DynamicCache

from knowshift.generate.encode import common_prefix
from knowshift.generate.fit import LOGIT_BYTES
from knowshift.generate.given import Given
from knowshift.generate.packed import Packed, as_texts, batches_of, can_pack, most_alike, pack, packing, rounding
from knowshift.generate.slots import Slots, can_be_slots, gathered, plain_cache

# Distinct tokens that are read together.
TOKENS = 2048
# Tokens that need not be laid out before it pays to read how all prompts begin apart.
WORTH_SHARING = 4096

Texts = Sequence[tuple[int, ...]]


class Reader:
    """Reads prompts with one model.

    Attributes:
        takes: the names of what the model's forward pass takes.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.takes = inspect.signature(model.forward).parameters.keys()
        self._alike: bool | None = None

    def forward(self, ids: torch.Tensor, *, keep: int | torch.Tensor = 1, cache: Any = None, **inputs: Any) -> Any:
        """The model's output for ``ids``, with logits of at least the last ``keep`` positions, or of just those."""
        if "logits_to_keep" in self.takes:
            inputs["logits_to_keep"] = keep
        cache = DynamicCache(config=self.model.config) if cache is None else cache
        return self.model(input_ids=ids.to(self.model.device), past_key_values=cache, use_cache=True, **inputs)

    def read(
        self, members: Sequence[int], encoded: Sequence[list[int]], given: Given, *, most: int, samples: int, limit: int
    ) -> tuple[torch.Tensor, Slots]:
        """Read some prompts and what is given for them.

        Args:
            members: which prompts, by index; ascending in length.
            encoded: token ids of all prompts.
            given: takes the log-probabilities of what follows.
            most: rows of logits for which there is memory.
            samples: slots a prompt.
            limit: positions of a slot beyond the longest prompt.

        Returns:
            Next-token logits, (members, vocabulary), and the cache, in the order of ``members``.

        Raises:
            NotFinite: if the logits of what is given are not finite.
        """
        longest = max(len(encoded[index]) for index in members)
        texts = [(*encoded[index], *given.read(index)) for index in members]
        if self._can_pack(texts):
            logits, caches = self._packed(members, encoded, texts, given, most)
        else:
            logits, caches = self._by_length(members, encoded, given, most)
        return logits, Slots(caches, len(members) * samples, longest, longest + limit)

    def _packed(
        self, members: Sequence[int], encoded: Sequence[list[int]], texts: Texts, given: Given, most: int
    ) -> tuple[torch.Tensor, list[Any]]:
        lengths = [len(encoded[index]) for index in members]
        counts = [max(1, given.tokens(index)) for index in members]
        start, common = self._common(texts, min(lengths))
        places = torch.full((len(members), max(lengths)), start)
        logits, caches, read = torch.empty(0), [], 0
        for numbers in self._packs(texts, counts, start, most):
            packed = pack([texts[number] for number in numbers], start)
            own = [counts[number] for number in numbers]
            keep = []
            for row, number in zip(packed.places, numbers, strict=True):
                length = lengths[number]
                keep.append(row[length - 1 : length - 1 + counts[number]] - start)
                places[number, places.shape[1] - length :] = row[:length] + read * (row[:length] >= start)
            output = self._forward_packed(packed, torch.cat(keep), plain_cache(self.model.config, common))
            found = output.logits[0]
            if not len(logits):
                logits = found.new_empty(len(members), found.shape[-1])
            logits[numbers] = found[list(accumulate(own[:-1], initial=0))]
            scored = torch.tensor([given.tokens(members[number]) > 0 for number in numbers])
            rows = scored.repeat_interleave(torch.tensor(own))
            given.take([members[number] for number in numbers], found if rows.all() else found[rows])
            caches.append(output.past_key_values)
            read += packed.ids.shape[1]
        return logits, [gathered(caches, places, start, self.model.config)]

    def _common(self, texts: Texts, shortest: int) -> tuple[int, Any]:
        """How many tokens all texts begin with that are best read before, and their keys and values."""
        start = min(common_prefix(min(texts), max(texts)), shortest - 1)
        if start * len(texts) < WORTH_SHARING:
            return 0, None
        return start, self.forward(torch.tensor([texts[0][:start]])).past_key_values

    def _packs(self, texts: Texts, counts: Sequence[int], start: int, most: int) -> Iterator[list[int]]:
        """Numbers of texts to be read together, that have logits of ``counts`` positions each."""
        room = most * LOGIT_BYTES // (2 * self.model.dtype.itemsize)  # half of it is for what is picked from
        for numbers in batches_of(texts, TOKENS, start):
            part: list[int] = []
            for number in numbers:
                if part and sum(counts[other] for other in part) + counts[number] > room:
                    yield part
                    part = []
                part.append(number)
            yield part

    def _forward_packed(self, packed: Packed, keep: torch.Tensor, cache: Any) -> Any:
        device = self.model.device
        with packing(self.model), as_texts(packed.to(device)):
            told = {"position_ids": packed.positions.to(device)}
            return self.forward(packed.ids, keep=keep.to(device), cache=cache, **told)

    def _can_pack(self, texts: Texts) -> bool:
        """Whether there is something to pack, and two texts, packed, have the logits that they have alone."""
        if len(texts) < 2 or "logits_to_keep" not in self.takes or not can_pack(self.model, max(map(len, texts))):
            return False
        if self._alike is None:
            alike = most_alike(texts)
            packed = pack(alike)
            ends = [row[len(text) - 1] for row, text in zip(packed.places, alike, strict=True)]
            together = self._forward_packed(packed, torch.stack(ends), plain_cache(self.model.config)).logits[0].float()
            alone = torch.cat([self.forward(torch.tensor([text])).logits[:, -1] for text in alike]).float()
            bound = rounding(self.model.dtype)
            self._alike = bool(((together - alone).norm(dim=-1) < bound * alone.norm(dim=-1)).all())
        return self._alike

    def _by_length(
        self, members: Sequence[int], encoded: Sequence[list[int]], given: Given, most: int
    ) -> tuple[torch.Tensor, list[Any]]:
        """Prompts of one length together, what is given padded behind them; forgotten again, or read apart before."""
        longest = len(encoded[members[-1]])
        along = given
        if not can_be_slots(DynamicCache(config=self.model.config), longest + given.longest(members)):
            along = Given([()] * len(encoded))
            for part in given.parts(members, most):
                self._one_length(part, encoded, given)
        caches, logits = [], []
        for _, same in groupby(members, lambda index: len(encoded[index])):
            for part in along.parts(list(same), most):
                found, cache, behind = self._one_length(part, encoded, along)
                if behind:
                    cache.crop(-behind)
                caches.append(cache)
                logits.append(found)
        return torch.cat(logits), caches

    def _one_length(
        self, members: Sequence[int], encoded: Sequence[list[int]], given: Given
    ) -> tuple[torch.Tensor, Any, int]:
        """Next-token logits, (members, vocabulary), the cache, and by how many positions it passes the prompts."""
        ids, behind = given.behind([encoded[index] for index in members], members)
        output = self.forward(ids, keep=1 + behind)
        rows = output.logits[:, -1 - behind :]
        given.take(members, rows.flatten(0, 1)[given.taken(members, behind)])
        return rows[:, 0], output.past_key_values, behind
