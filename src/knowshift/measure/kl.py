"""How far two next-token distributions are apart. Takes logits, knows nothing of texts or models.

Sums over the vocabulary are taken one number type wider than the logits: a divergence between near neighbours
is a small difference of large sums, and its rounding would otherwise be of its own size.
"""

from typing import NamedTuple

import torch


class Divergence(NamedTuple):
    """For each of n positions; divergences and log-probabilities in nats.

    Attributes:
        tuned_base: KL(tuned || base).
        base_tuned: KL(base || tuned).
        top_base: the base model's most likely token.
        top_tuned: the tuned model's.
        top_base_logprob: log-probability of ``top_base`` under the base model.
        top_tuned_logprob: log-probability of ``top_tuned`` under the tuned model.
        target_base: log-probability of the target under the base model.
        target_tuned: under the tuned model.
    """

    tuned_base: torch.Tensor
    base_tuned: torch.Tensor
    top_base: torch.Tensor
    top_tuned: torch.Tensor
    top_base_logprob: torch.Tensor
    top_tuned_logprob: torch.Tensor
    target_base: torch.Tensor
    target_tuned: torch.Tensor


def divergence(base: torch.Tensor, tuned: torch.Tensor, targets: torch.Tensor) -> Divergence:
    """Compare two models over the whole vocabulary.

    Args:
        base: (n, vocabulary) logits of the base model.
        tuned: (n, vocabulary) logits of the tuned model, given the same tokens.
        targets: (n,) the token that truly follows.
    """
    log_base = base.log_softmax(dim=-1, dtype=_wider(base.dtype))
    log_tuned = tuned.log_softmax(dim=-1, dtype=_wider(tuned.dtype))
    top_base, top_tuned = log_base.argmax(dim=-1), log_tuned.argmax(dim=-1)
    tuned_base, base_tuned = _both_ways(log_base, log_tuned)
    return Divergence(
        tuned_base,
        base_tuned,
        top_base,
        top_tuned,
        _pick(log_base, top_base),
        _pick(log_tuned, top_tuned),
        _pick(log_base, targets),
        _pick(log_tuned, targets),
    )


def top_divergence(base: torch.Tensor, tuned: torch.Tensor, top: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Compare two models over the tuned model's ``top`` most likely tokens alone (paper, section 4).

    Both models' logits are renormalised over these tokens.

    Args:
        base: (n, vocabulary) logits of the base model.
        tuned: (n, vocabulary) logits of the tuned model.
        top: how many tokens; all of a smaller vocabulary.

    Returns:
        (n,) KL(tuned || base) and (n,) KL(base || tuned), in nats.
    """
    ids = tuned.topk(min(top, tuned.shape[-1]), dim=-1).indices
    log_base, log_tuned = (logits.gather(-1, ids).log_softmax(dim=-1, dtype=torch.float64) for logits in (base, tuned))
    return _both_ways(log_base, log_tuned)


def _both_ways(log_base: torch.Tensor, log_tuned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    change = log_tuned - log_base
    tuned_base = torch.linalg.vecdot(log_tuned.exp(), change)
    base_tuned = -torch.linalg.vecdot(log_base.exp(), change)
    # A divergence is never negative; its rounded sum may be.
    return tuned_base.clamp(min=0), base_tuned.clamp(min=0)


def _pick(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return rows.gather(-1, columns[:, None])[:, 0]


def _wider(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.itemsize < 4 else torch.float64
