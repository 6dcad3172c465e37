"""Many texts read as one row of tokens, in which what they begin with in common stands once.

Only attention looks at more than one token. So a model gets every distinct token once, at its own position, with no
padding; attention alone lays queries, keys and values out as the texts, one a row, and needs no mask for it: what pads
a text on the right is seen by none of its tokens. The states are those of each text alone, up to rounding.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from knowshift.generate.encode import common_prefix
from knowshift.generate.slots import can_be_slots, lay_out

NAME = "knowshift_packed"
# Places that attention reads for a token, at most.
LAID_OUT = 4


@dataclass(frozen=True, slots=True)
class Packed:
    """Where the tokens of some texts stand.

    Attributes:
        ids: (1, tokens) the distinct ones.
        positions: (1, tokens) of each in its texts.
        places: (texts, longest) for each token of each text its number: first the ``start`` tokens that all begin with,
            then the distinct ones; ``start`` after its end.
        own: (tokens,) for each distinct token a place in ``places`` from ``start`` on, flat.
        start: how many tokens that all texts begin with the model has read before: its cache begins with them.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    own: torch.Tensor
    start: int = 0

    def to(self, device: torch.device) -> "Packed":
        """The same on another device."""
        ids, positions, places, own = (
            tensor.to(device) for tensor in (self.ids, self.positions, self.places, self.own)
        )
        return Packed(ids, positions, places, own, self.start)


def pack(texts: Sequence[Sequence[int]], start: int = 0) -> Packed:
    """Lay out texts, each longer than the ``start`` tokens they all begin with and that are left out.

    Each shares with the one before it, so they should be sorted.
    """
    longest = max(map(len, texts))
    ids: list[int] = []
    positions: list[int] = []
    own: list[int] = []
    places: list[list[int]] = []
    for number, text in enumerate(texts):
        shared = common_prefix(texts[number - 1], text) if number else start
        row = places[-1][:shared] if number else list(range(start))
        row += range(start + len(ids), start + len(ids) + len(text) - shared)
        ids += text[shared:]
        positions += range(shared, len(text))
        before = number * (longest - start) - start
        own += range(before + shared, before + len(text))
        places.append(row + [start] * (longest - len(row)))
    return Packed(torch.tensor([ids]), torch.tensor([positions]), torch.tensor(places), torch.tensor(own), start)


def most_alike(texts: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The two on which packing is best tried: one goes on where the other began to, or ends.

    A model that looks at neighbouring tokens would not be found out by texts that have nothing in common.
    """
    return max(pairwise(sorted(texts)), key=lambda pair: common_prefix(*pair) % len(pair[0]))


def rounding(dtype: torch.dtype) -> float:
    """By what share of its norm a packed text's result may differ from that of the text alone."""
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.05


def tokens_apart(texts: Sequence[Sequence[int]]) -> int:
    """How many tokens ``pack`` would leave of sorted texts."""
    return sum(map(len, texts)) - sum(common_prefix(*neighbours) for neighbours in pairwise(texts))


def can_pack(model: Any, longest: int) -> bool:
    """Whether a model takes texts of at most ``longest`` tokens packed: it attends by torch's fused attention, to every
    token before, and is told positions.
    """
    told = inspect.signature(model.base_model.forward).parameters
    return (
        model.config._attn_implementation in (NAME, "sdpa", "knowshift_decode")
        and "position_ids" in told
        and can_be_slots(DynamicCache(config=model.config), longest)
    )


def batches_of(texts: Sequence[tuple[int, ...]], tokens: int, start: int = 0) -> list[list[int]]:
    """Numbers of the texts to pack together: alike ones, at most ``tokens`` distinct ones unless a text has more.

    Laid out they have at most ``LAID_OUT`` times as many places. The ``start`` tokens that all begin with do not count.
    """
    grouped: list[list[int]] = []
    count = width = 0
    for index in sorted(range(len(texts)), key=lambda index: (texts[index], index)):
        text = texts[index]
        longest = max(width, len(text) - start)
        new = len(text) - (common_prefix(texts[grouped[-1][-1]], text) if grouped else start)
        if not grouped or count + new > tokens or longest * (len(grouped[-1]) + 1) > LAID_OUT * tokens:
            grouped.append([])
            count = 0
            longest = new = len(text) - start
        grouped[-1].append(index)
        count, width = count + new, longest
    return grouped


@contextmanager
def packing(model: Any) -> Iterator[None]:
    """Within it the model reads packed texts, by ``as_texts``, and no others."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _no_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def as_texts(packed: Packed) -> Iterator[None]:
    """Within it attention reads ``packed``."""
    token = _READ.set(packed)
    try:
        yield
    finally:
        _READ.reset(token)


_READ: ContextVar[Packed] = ContextVar("packed")


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    packed = _READ.get().to(query.device)
    start, seen = packed.start, packed.places
    asked = seen[:, start:] - start
    laid = (lay_out(states, at) for states, at in ((query, asked), (key, seen), (value, seen)))
    # torch's own causal attention looks no further than as many tokens as there are queries before.
    mask = torch.ones(asked.shape[1], seen.shape[1], dtype=torch.bool, device=query.device).tril(start)
    mixed, _ = sdpa_attention_forward(
        module, *laid, mask[None, None] if start else None, scaling=scaling, **{**options, "is_causal": not start}
    )
    return mixed.flatten(0, 1).index_select(0, packed.own)[None], None


def _no_mask(*_: Any, **__: Any) -> None:
    return None
