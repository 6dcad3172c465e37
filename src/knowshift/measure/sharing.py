"""Passages that begin alike are compared once where they are alike. Knows token ids, not models.

Questions of one topic share their first words, and all share the words of the trained prompt. In a causal model the
states there are the same, and so is everything measured on them: a third of the output layer's work on short questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from knowshift.generate.encode import common_prefix
from knowshift.measure.passages import Passage


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the states of every passage stand, each distinct one once.

    Attributes:
        skipped: for each passage, how many of its first measured positions stand with another passage.
        starts: for each passage, the row where its own states begin, and at last the number of rows.
        rows: for each measured position of each passage, in their order, the row of its state.
    """

    skipped: tuple[int, ...]
    starts: tuple[int, ...]
    rows: npt.NDArray[np.int64]


def layout(passages: Sequence[Passage]) -> Layout:
    """One row for all positions that read the same tokens and are followed by the same.

    Passages of which not everything is measured share nothing.
    """
    skipped, like = [0] * len(passages), list(range(len(passages)))
    order = list(range(len(passages)))
    if all(passage.kept == len(passage.ids) == len(passage.targets) for passage in passages):
        order.sort(key=lambda index: (passages[index].ids, passages[index].targets[-1:]))
        for before, index in pairwise(order):
            left, right = passages[before], passages[index]
            shared = common_prefix((*left.ids, left.targets[-1]), (*right.ids, right.targets[-1]))
            # A passage that says nothing new still has a row: none is empty.
            skipped[index], like[index] = max(0, min(shared - 1, right.kept - 1)), before
    starts = [0]
    for passage, skip in zip(passages, skipped, strict=True):
        starts.append(starts[-1] + passage.kept - skip)
    rows: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)] * len(passages)
    for index in order:  # what a passage shares is known by then
        rows[index] = np.concatenate(
            [rows[like[index]][: skipped[index]], np.arange(starts[index], starts[index + 1], dtype=np.int64)]
        )
    return Layout(tuple(skipped), tuple(starts), np.concatenate(rows))
