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
from knowshift.generate.slots import can_be_slots

NAME = "knowshift_packed"
# Places that attention reads for a token, at most.
LAID_OUT = 4


@dataclass(frozen=True, slots=True)
class Packed:
    """Where the tokens of some texts stand.

    Attributes:
        ids: (1, tokens) the distinct ones.
        positions: (1, tokens) of each in its texts.
        places: (texts, longest) for each token of each text its number among the distinct ones; 0 after its end.
        own: (tokens,) for each distinct token a place in ``places``, flat.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    own: torch.Tensor

    def to(self, device: torch.device) -> "Packed":
        """The same on another device."""
        return Packed(*(getattr(self, name).to(device) for name in self.__slots__))


def pack(texts: Sequence[Sequence[int]]) -> Packed:
    """Lay out texts, none empty; each shares with the one before it, so they should be sorted."""
    longest = max(map(len, texts))
    ids: list[int] = []
    positions: list[int] = []
    own: list[int] = []
    places: list[list[int]] = []
    for number, text in enumerate(texts):
        shared = common_prefix(texts[number - 1], text) if number else 0
        row = places[-1][:shared] if number else []
        row += range(len(ids), len(ids) + len(text) - shared)
        ids += text[shared:]
        positions += range(shared, len(text))
        own += range(number * longest + shared, number * longest + len(text))
        places.append(row + [0] * (longest - len(row)))
    return Packed(torch.tensor([ids]), torch.tensor([positions]), torch.tensor(places), torch.tensor(own))


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


def batches_of(texts: Sequence[tuple[int, ...]], tokens: int) -> list[list[int]]:
    """Numbers of the texts to pack together: alike ones, at most ``tokens`` distinct ones unless a text has more.

    Laid out they have at most ``LAID_OUT`` times as many places.
    """
    grouped: list[list[int]] = []
    count = width = 0
    for index in sorted(range(len(texts)), key=lambda index: (texts[index], index)):
        text = texts[index]
        longest = max(width, len(text))
        new = len(text) - (common_prefix(texts[grouped[-1][-1]], text) if grouped else 0)
        if not grouped or count + new > tokens or longest * (len(grouped[-1]) + 1) > LAID_OUT * tokens:
            grouped.append([])
            count, longest, new = 0, len(text), len(text)
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
    rows, width = packed.places.shape
    flat = packed.places.flatten()
    laid = (
        states[0].index_select(1, flat).view(states.shape[1], rows, width, -1).transpose(0, 1)
        for states in (query, key, value)
    )
    mixed, _ = sdpa_attention_forward(module, *laid, None, scaling=scaling, **{**options, "is_causal": True})
    return mixed.flatten(0, 1).index_select(0, packed.own)[None], None


def _no_mask(*_: Any, **__: Any) -> None:
    return None
