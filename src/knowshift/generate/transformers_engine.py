"""Sampling on any decoder-only transformers model, sharing every prefix that draws have in common.

A prompt is read once for all its draws. Draws that have said the same so far are one row of the batch: the
model is asked once for their next-token distribution, then each draw picks from it with its own random number.
So the draws are exactly independent, and identical continuations cost one decode. A row leaves the batch when
its text meets the stop test, at end of sequence, or at the token limit. Prompts of equal token length are
batched together, so attention needs no padding mask. Knows nothing of facts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from knowshift.errors import InputError
from knowshift.generate.encode import encode
from knowshift.generate.engine import Completion, Prompt
from knowshift.memory import keep_freed_memory
from knowshift.seeds import derive, uniforms

# Rows decoded together. Fixed rather than fitted to free memory: what is batched together shows in the last
# bits of a matrix product, and a resumed run must repeat the first one exactly.
ROWS = 384


@dataclass(slots=True)
class _Row:
    """One distinct continuation: the draws that share it, and its tokens so far."""

    prompt: int
    draws: list[int]
    tokens: list[int]


class TransformersEngine:
    """An ``Engine`` on a loaded model and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, *, rows: int = ROWS) -> None:
        keep_freed_memory()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.rows = rows
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or 0)
        self._ends = _end_tokens(model, tokenizer)

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
            drawing = [[draw for draw in row.draws if draw < samples] for row in rows]
            owners = [index for index, draws in enumerate(drawing) for _ in draws]
            drawn = np.concatenate(
                [uniforms(keys[row.prompt, draws], step) for row, draws in zip(rows, drawing, strict=True)]
            )
            tokens = iter(_inverse_cdf(logits, temperature, owners, drawn))
            picked = [[next(tokens) for _ in draws] for draws in drawing]
            if greedy:
                best = [index for index, row in enumerate(rows) if samples in row.draws]
                for index, token in zip(best, logits[best].argmax(-1).tolist(), strict=True):
                    picked[index].append(token)
            return picked

        return self._decode(encode(self.tokenizer, prompts), samples + greedy, max_new_tokens, pick, stop, advance)

    def greedy(
        self, prompts: Sequence[str], *, max_new_tokens: int, advance: Callable[[int], None] | None = None
    ) -> list[Completion]:
        """The most likely continuation of each prompt, as ``generate(do_sample=False)`` gives it."""

        def pick(logits: torch.Tensor, rows: list[_Row], step: int) -> list[list[int]]:
            best = logits.max(-1)
            _refuse_nan(best.values)
            return [[token] for token in best.indices.tolist()]

        encoded = encode(self.tokenizer, [Prompt(text, key="") for text in prompts])
        return [draws[0] for draws in self._decode(encoded, 1, max_new_tokens, pick, None, advance)]

    def _decode(
        self,
        encoded: list[list[int]],
        samples: int,
        limit: int,
        pick: Callable[[torch.Tensor, list[_Row], int], list[list[int]]],
        stop: Callable[[int, str], bool] | None,
        advance: Callable[[int], None] | None,
    ) -> list[list[Completion]]:
        results: list[list[Completion | None]] = [[None] * samples for _ in encoded]
        with torch.inference_mode():
            for members, ids in self._batches(encoded, samples, limit):
                self._decode_batch(members, ids, samples, limit, pick, stop, results)
                if advance is not None:
                    advance(len(members))
        return [[draw for draw in draws if draw is not None] for draws in results]

    def _batches(self, encoded: list[list[int]], samples: int, limit: int) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Prompts of equal token length, in the order given, as (indices, ids of shape (prompts, length))."""
        lengths: dict[int, list[int]] = {}
        for index, ids in enumerate(encoded):
            if self.context and len(ids) + limit > self.context:
                raise InputError(
                    f"a prompt of {len(ids)} tokens and {limit} new ones pass the model's context of "
                    f"{self.context}: {self.tokenizer.decode(ids[:20])!r}..."
                )
            lengths.setdefault(len(ids), []).append(index)
        width = max(1, self.rows // samples)
        for length in sorted(lengths):
            members = lengths[length]
            for start in range(0, len(members), width):
                batch = members[start : start + width]
                yield batch, torch.tensor([encoded[index] for index in batch], device=self.model.device)

    def _decode_batch(
        self,
        members: list[int],
        ids: torch.Tensor,
        samples: int,
        limit: int,
        pick: Callable[[torch.Tensor, list[_Row], int], list[list[int]]],
        stop: Callable[[int, str], bool] | None,
        results: list[list[Completion | None]],
    ) -> None:
        rows = [_Row(index, list(range(samples)), []) for index in members]
        output = self.model(input_ids=ids, use_cache=True, logits_to_keep=1)
        for step in range(limit):
            logits = output.logits[:, -1]
            parents, rows = self._grow(rows, pick(logits, rows, step), step + 1 == limit, stop, results)
            if not rows:
                return
            cache = output.past_key_values
            if parents != list(range(logits.shape[0])):
                cache.batch_select_indices(torch.tensor(parents, device=ids.device))
            last = torch.tensor([[row.tokens[-1]] for row in rows], device=ids.device)
            output = self.model(input_ids=last, past_key_values=cache, use_cache=True, logits_to_keep=1)

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
            for draw, token in zip(row.draws, tokens, strict=True):
                branches.setdefault(token, []).append(draw)
            children += [(parent, _Row(row.prompt, draws, [*row.tokens, token])) for token, draws in branches.items()]
        ended = [row.tokens[-1] in self._ends for _, row in children]
        texts = [""] * len(children)
        if stop is not None or last or any(ended):
            texts = self.tokenizer.batch_decode(
                [row.tokens for _, row in children],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
        parents: list[int] = []
        kept: list[_Row] = []
        for (parent, row), text, end in zip(children, texts, ended, strict=True):
            stopped = not end and stop is not None and stop(row.prompt, text)
            if end or stopped or last:
                finish = "eos" if end else "stop" if stopped else "length"
                for draw in row.draws:
                    results[row.prompt][draw] = Completion(text, len(row.tokens), finish)
            else:
                parents.append(parent)
                kept.append(row)
        return parents, kept


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ends = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return frozenset(end for end in ends if end is not None)


def _refuse_nan(values: torch.Tensor) -> None:
    """NaN anywhere in a row of logits shows in the row's sum and maximum; looking there costs nothing."""
    if values.isnan().any():
        raise InputError("the model's logits are NaN: its weights are damaged")


def _inverse_cdf(
    logits: torch.Tensor,
    temperature: float,
    owners: Sequence[int],
    drawn: np.ndarray[Any, Any],
    block: int = 256,
) -> list[int]:
    """Token ids drawn from softmax(logits / temperature) by inverse distribution function.

    Args:
        logits: (rows, vocabulary).
        owners: for each draw, the row it is for.
        drawn: for each draw, its uniform number in [0, 1).
        block: the distribution is summed by blocks of this many tokens, then within the one block hit: the
            whole running sum over the vocabulary, in double precision, would cost more than the sampling.
    """
    weights = torch.softmax(logits.float() / temperature, dim=-1)
    rows, vocabulary = weights.shape
    padding = -vocabulary % block
    if padding:
        weights = torch.nn.functional.pad(weights, (0, padding))
    blocks = weights.view(rows, -1, block)
    totals = blocks.sum(-1).double().cumsum(-1)
    _refuse_nan(totals[:, -1])
    owner = torch.as_tensor(owners, device=logits.device)
    target = torch.as_tensor(drawn, device=logits.device) * totals[owner, -1]
    hit = torch.searchsorted(totals[owner], target[:, None], right=True).clamp_(max=totals.shape[1] - 1)
    before = torch.where(hit > 0, totals[owner].gather(1, (hit - 1).clamp_(min=0)), 0.0)
    inside = blocks[owner, hit[:, 0]].double().cumsum(-1)
    place = torch.searchsorted(inside, target[:, None] - before, right=True)
    # Rounding between the two sums may point just past the last token with weight; take that token.
    positive = (inside < inside[:, -1:]).sum(-1, keepdim=True)
    token = hit * block + torch.minimum(place, positive)
    return torch.clamp(token[:, 0], max=vocabulary - 1).tolist()
