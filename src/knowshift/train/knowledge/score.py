"""One scoring: the panel read again, against what the base said there. Knows models and panels, not who trains."""

from __future__ import annotations

from typing import Any

import torch

from knowshift.measure.kl import divergence
from knowshift.train.knowledge.bounds import Score
from knowshift.train.knowledge.panel import Panel
from knowshift.train.knowledge.reading import answer_logits


def score(model: Any, panel: Panel, *, step: int, weights: float | None) -> Score:
    """Read ``panel`` and compare; ``step`` and ``weights`` are passed on into what comes back."""
    kl = log_prob = 0.0
    lost: list[int] = []
    for index, logits in answer_logits(model, panel.passages):
        targets = torch.tensor(panel.passages[index].targets, device=logits.device)
        apart = divergence(panel.base[index].to(logits.device), logits, targets)
        kl += float(apart.tuned_base.sum())
        log_prob += float((apart.target_tuned - apart.target_base).sum())
        if bool((logits.argmax(-1) != targets).any()):
            lost.append(index)
    tokens = sum(passage.kept for passage in panel.passages)
    return Score(
        step,
        kl / tokens,
        len(lost) / len(panel.passages) if panel.known else None,
        log_prob / tokens,
        weights,
        tuple(panel.names[index] for index in sorted(lost)) if panel.known else (),
    )
