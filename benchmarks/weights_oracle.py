"""The paper's own algorithm, by sorting, against what is restored: for every paper fraction the same elements."""

from pathlib import Path

import numpy as np

from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.pairing import pair
from knowshift.weights.ranking import Ranking, exact
from knowshift.weights.scores import Rule
from knowshift.weights.taken import take
from knowshift.weights.walk import tiles

PAPER = ("0.01", "0.03", "0.05", "0.1", "0.2", "0.4", "0.6")


def check(base: Path, tuned: Path) -> str:
    """A line for each fraction: how many are restored, how many should be, and how many differ from the sorted ones.

    Scores are computed by torch in bfloat16 as in the paper's released code, and kept whole: 2 bytes a weight.
    Elements above the k-th largest score must all be taken, those below none, and of the equal ones as many as are
    missing.
    """
    import torch

    pairs, _ = pair(Checkpoint.open(base), Checkpoint.open(tuned), "blocks")
    scores = np.empty(sum(entry.size for entry in pairs), np.uint16)
    end = 0
    for tile in tiles(pairs, 1 << 24):
        left, right = (
            torch.from_numpy(side.copy().view(np.int16)).view(torch.bfloat16)
            for side in (tile.pair.base_bits(tile.start, tile.stop), tile.pair.tuned_bits(tile.start, tile.stop))
        )
        score = (right - left).abs() / (left.abs() + 1e-8)
        scores[end : end + score.numel()] = score.view(torch.int16).numpy().view(np.uint16)
        end += score.numel()
    ordered = np.sort(scores)
    rule = Rule(arithmetic="bfloat16")
    ranking = Ranking(pairs, rule)
    lines = []
    taken = take(ranking, ranking.cuts([exact(fraction) for fraction in PAPER]))
    masks = np.empty(scores.size, np.bool_)
    for fraction, chosen in zip(PAPER, taken, strict=True):
        end = 0
        for tile in tiles(pairs):
            mask = chosen.mask(tile, tile.score(rule).keys)
            masks[end : end + mask.size] = mask
            end += mask.size
        count = scores.size * exact(fraction).numerator // exact(fraction).denominator
        threshold = ordered[scores.size - count]
        wrong = int((masks != (scores > threshold))[scores != threshold].sum())
        ties = scores == threshold
        first = np.flatnonzero(ties)[: count - int((scores > threshold).sum())]
        wrong += int(masks[ties].sum()) - int(masks[first].sum())
        lines.append(f"{fraction}: {int(masks.sum()):,} restored of {count:,} wanted, {wrong} other than by sorting")
    return "\n".join([f"{scores.size:,} weights", *lines])
