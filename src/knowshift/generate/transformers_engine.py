"""Sampling on any decoder-only transformers model, sharing every prefix that draws have in common.

A prompt is read once for all its draws. Draws that have said the same so far are one row of the batch: the
model is asked once for their next-token distribution, then each draw picks from it with its own random number.
So the draws are exactly independent, and identical continuations cost one decode. A row leaves the batch when
its text meets the stop test, at end of sequence, or at the token limit. Prompts are read in groups of equal
length, so that attention needs no padding there, and decoded together. Knows nothing of facts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from knowshift.errors import InputError
from knowshift.generate.attention import use_decode_attention
from knowshift.generate.draw import draw, likeliest
from knowshift.generate.encode import encode
from knowshift.generate.engine import Completion, NotFinite, Prompt, as_prompts
from knowshift.generate.fit import fit_rows, shorter
from knowshift.generate.given import Given
from knowshift.generate.reader import Reader
from knowshift.generate.slots import can_be_slots
from knowshift.memory import keep_freed_memory
from knowshift.seeds import derive, uniforms

Pick = Callable[[torch.Tensor, "list[_Row]", int], list[list[int]]]


@dataclass(slots=True)
class _Row:
    """One distinct continuation: the draws that share it, and its tokens so far."""

    prompt: int
    draws: list[int]
    tokens: list[int]


class TransformersEngine:
    """An ``Engine`` on a loaded model and its tokenizer; ``rows`` are fitted to the free memory unless given."""

    def __init__(self, model: Any, tokenizer: Any, *, rows: int | None = None) -> None:
        keep_freed_memory()
        use_decode_attention(model)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or 0)
        self._ends = _end_tokens(model, tokenizer)
        self._reader = Reader(model)
        self.rows = rows or self._fitted()

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
        """Independent draws; see ``Engine.sample``."""
        if samples < 1 or max_new_tokens < 1 or not temperature > 0:
            raise InputError("samples and max-new-tokens must be at least 1 and temperature above 0")
        numbers = range(first, first + samples)
        keys = np.array(
            [[derive(seed, prompt.key, number) for number in numbers] for prompt in prompts], np.uint64
        ).reshape(len(prompts), samples)

        def pick(logits: torch.Tensor, rows: list[_Row], step: int) -> list[list[int]]:
            drawing = [(index, row.prompt, number) for index, row in enumerate(rows) for number in row.draws]
            index, prompt, number = np.array(drawing).T
            tokens = np.empty(len(drawing), np.int64)
            random = number < samples
            tokens[random] = draw(
                logits, temperature, index[random], uniforms(keys[prompt[random], number[random]], step)
            )
            if not random.all():
                tokens[~random] = likeliest(logits[index[~random]])
            left = iter(tokens.tolist())
            return [[next(left) for _ in row.draws] for row in rows]

        return self._decode(encode(self.tokenizer, prompts), samples + greedy, max_new_tokens, pick, stop, advance)

    def greedy(
        self, prompts: Sequence[str | Prompt], *, max_new_tokens: int, advance: Callable[[int], None] | None = None
    ) -> list[Completion]:
        """The most likely continuation of each prompt, as ``generate(do_sample=False)`` gives it."""
        encoded = encode(self.tokenizer, as_prompts(prompts))
        return [draws[0] for draws in self._decode(encoded, 1, max_new_tokens, _pick_likeliest, None, advance)]

    def answer(
        self,
        prompts: Sequence[str | Prompt],
        given: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Callable[[int, str], bool] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> list[tuple[Completion, float]]:
        """Greedy continuations and log-probabilities; see ``Engine.answer``."""
        encoded = encode(self.tokenizer, as_prompts(prompts))
        beside = Given(given)
        drawn = self._decode(encoded, 1, max_new_tokens, _pick_likeliest, stop, advance, beside)
        return [(draws[0], log_prob) for draws, log_prob in zip(drawn, beside.log_probs, strict=True)]

    def _decode(
        self,
        encoded: list[list[int]],
        samples: int,
        limit: int,
        pick: Pick,
        stop: Callable[[int, str], bool] | None,
        advance: Callable[[int], None] | None,
        given: Given | None = None,
    ) -> list[list[Completion]]:
        results: list[list[Completion | None]] = [[None] * samples for _ in encoded]
        given = given or Given([()] * len(encoded))
        with torch.inference_mode():
            for members in self._batches(encoded, samples, limit, given):
                try:
                    self._decode_batch(members, encoded, samples, limit, pick, stop, results, given)
                except NotFinite as error:
                    raise NotFinite(error.found, self.model.name_or_path) from None
                if advance is not None:
                    advance(len(members))
        return [[draw for draw in draws if draw is not None] for draws in results]

    def _fitted(self) -> int:
        """Rows that fit, told by one token that is read."""
        with torch.inference_mode():
            output = self._reader.forward(torch.zeros((1, 1), dtype=torch.long))
        return fit_rows(output.past_key_values, output.logits[:, -1])

    def _batches(self, encoded: list[list[int]], samples: int, limit: int, given: Given) -> Iterator[list[int]]:
        """Prompts that are decoded together, by index: the shortest first, in batches of about equal size."""
        order = sorted(range(len(encoded)), key=lambda index: (len(encoded[index]), given.tokens(index)))
        ends = [len(ids) + max(limit, given.tokens(index)) for index, ids in enumerate(encoded)]
        longest = max(ends, default=0)
        if self.context and longest > self.context:
            ids = encoded[ends.index(longest)]
            raise InputError(
                f"a prompt of {len(ids)} tokens and {longest - len(ids)} new ones pass the model's context of "
                f"{self.context}: {self.tokenizer.decode(ids[:20])!r}..."
            )
        # Sliding windows that have moved on and recurrent states do not mix lengths.
        mixes = can_be_slots(DynamicCache(config=self.model.config), longest) and "position_ids" in self._reader.takes

        def kin(index: int) -> tuple[int, int]:
            length = len(encoded[index])
            return shorter(self.rows, length + limit), 0 if mixes else length

        for (rows, _), members in groupby(order, kin):
            group = list(members)
            count = -(-len(group) // max(1, rows // samples))
            edges = [len(group) * number // count for number in range(count + 1)]
            yield from (group[low:high] for low, high in pairwise(edges))

    def _decode_batch(
        self,
        members: list[int],
        encoded: list[list[int]],
        samples: int,
        limit: int,
        pick: Pick,
        stop: Callable[[int, str], bool] | None,
        results: list[list[Completion | None]],
        given: Given,
    ) -> None:
        device = self.model.device
        logits, slots = self._reader.read(members, encoded, given, most=self.rows, samples=samples, limit=limit)
        rows = [_Row(index, list(range(samples)), []) for index in members]
        lengths = torch.tensor([len(encoded[index]) for index in members], device=device)
        filled = int(lengths.max())
        mixed = bool((lengths != filled).any())
        for step in range(limit):
            parents, rows = self._grow(rows, pick(logits, rows, step), step + 1 == limit, stop, results)
            if not rows:
                return
            slots.select(parents, device)
            lengths = lengths[torch.tensor(parents, device=device)]
            told: dict[str, Any] = {}
            if mixed:
                seen = torch.arange(filled + step + 1, device=device)
                told["attention_mask"] = seen >= (filled - lengths)[:, None]
                told["position_ids"] = (lengths + step)[:, None]
            last = torch.tensor([[row.tokens[-1]] for row in rows], device=device)
            logits = self._reader.forward(last, cache=slots.cache, **told).logits[:, -1]

    def _grow(
        self,
        rows: list[_Row],
        picked: list[list[int]],
        last: bool,
        stop: Callable[[int, str], bool] | None,
        results: list[list[Completion | None]],
    ) -> tuple[list[int], list[_Row]]:
        """Split every row by the tokens its draws picked; finish what ends, return the rest with their parents."""
        children: list[tuple[int, _Row]] = []
        for parent, (row, tokens) in enumerate(zip(rows, picked, strict=True)):
            branches: dict[int, list[int]] = {}
            for number, token in zip(row.draws, tokens, strict=True):
                branches.setdefault(token, []).append(number)
            children += [(parent, _Row(row.prompt, draws, [*row.tokens, token])) for token, draws in branches.items()]
        ended = [row.tokens[-1] in self._ends for _, row in children]
        texts = [""] * len(children)
        if stop is not None or last or any(ended):
            texts = self.tokenizer.batch_decode(
                [row.tokens for _, row in children],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
        kept: list[tuple[int, _Row]] = []
        for (parent, row), text, end in zip(children, texts, ended, strict=True):
            stopped = not end and stop is not None and stop(row.prompt, text)
            if end or stopped or last:
                finish = "eos" if end else "stop" if stopped else "length"
                for number in row.draws:
                    results[row.prompt][number] = Completion(text, len(row.tokens), finish)
            else:
                kept.append((parent, row))
        return _place(kept)


def _pick_likeliest(logits: torch.Tensor, rows: list[_Row], step: int) -> list[list[int]]:
    return [[token] for token in likeliest(logits).tolist()]


def _place(kept: list[tuple[int, _Row]]) -> tuple[list[int], list[_Row]]:
    """Order rows so that as many as can stay where their parent was: those need no copy of its cache."""
    placed: dict[int, tuple[int, _Row]] = {}
    others: list[tuple[int, _Row]] = []
    for parent, row in kept:
        if parent < len(kept) and parent not in placed:
            placed[parent] = (parent, row)
        else:
            others.append((parent, row))
    free = (slot for slot in range(len(kept)) if slot not in placed)
    placed.update(zip(free, others, strict=True))
    ordered = [placed[slot] for slot in range(len(kept))]
    return [parent for parent, _ in ordered], [row for _, row in ordered]


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ends = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return frozenset(end for end in ends if end is not None)
