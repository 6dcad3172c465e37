"""Text that the base wrote from nothing, and how far a model has since moved from the base on it.

What a model writes at temperature 1 is a sample of what it expects, knowledge included, and needs no data. The base's
next-token distributions are kept as its ``TOP`` likeliest tokens and the mass of all others together. Between
distributions grouped like this KL is never more than between whole ones, and near it as long as the likeliest tokens
hold most of the mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from knowshift.errors import InputError
from knowshift.generate.engine import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOP = 64
BATCH = 16
_LEAST = 1e-6  # mass of all other tokens, below which rounding decides


@dataclass(frozen=True, slots=True)
class OwnText:
    """Texts with the base's distributions.

    Attributes:
        ids: (texts, tokens) token ids, padded at the end.
        real: (texts, tokens) whether there is a token.
        likeliest: (texts, tokens, TOP) token ids.
        log_probs: (texts, tokens, TOP) of them under the base.
    """

    ids: Tensor
    real: Tensor
    likeliest: Tensor
    log_probs: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def inputs(self, texts: Sequence[int], device: torch.device) -> dict[str, Any]:
        """What a model takes for some of the texts."""
        rows = list(texts)
        return {
            "input_ids": self.ids[rows].to(device),
            "attention_mask": self.real[rows].long().to(device),
            "use_cache": False,
        }

    def tokens(self, texts: Sequence[int]) -> int:
        """How many tokens some of the texts have."""
        return int(self.real[list(texts)].sum())

    def divergence(self, texts: Sequence[int], logits: Tensor) -> Tensor:
        """KL(base || model) in nats, summed over the tokens of some of the texts.

        Args:
            logits: (len(texts), tokens, vocabulary) of the model for ``inputs``.
        """
        rows = list(texts)
        base = self.log_probs[rows].to(logits.device)
        log_probs = logits.float().log_softmax(-1).gather(-1, self.likeliest[rows].to(logits.device))
        rest, own_rest = ((1 - each.exp().sum(-1)).clamp(min=_LEAST) for each in (base, log_probs))
        divergence = (base.exp() * (base - log_probs)).sum(-1) + rest * (rest.log() - own_rest.log())
        return divergence[self.real[rows].to(logits.device)].sum()


def texts_of_base(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, tokens: int, seed: int
) -> list[list[int]]:
    """``count`` texts of at most ``tokens`` tokens that ``model`` writes at temperature 1 from its beginning.

    The beginning is what the tokenizer puts before an empty text, else its beginning or end token.

    Raises:
        InputError: if the tokenizer has none of these.
    """
    from knowshift.train.own_answers import answers

    first = list(tokenizer("").input_ids)
    start = "" if first else str(tokenizer.bos_token or tokenizer.eos_token or "")
    if not first and not start:
        raise InputError("the tokenizer has neither a beginning nor an end token to let the base write from")
    first = first or list(tokenizer(start).input_ids)
    prompts = [Prompt(start, f"text {number}") for number in range(count)]
    said = answers(model, tokenizer, prompts, temperature=1, max_new_tokens=tokens, seed=seed, whole=False)
    return [(first + list(tokenizer(text, add_special_tokens=False).input_ids))[: len(first) + tokens] for text in said]


@torch.no_grad()
def remembered(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> OwnText:
    """The texts with ``model``'s distributions on them; ``model`` is the base."""
    ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
    real = pad_sequence([torch.ones(len(text), dtype=torch.bool) for text in texts], batch_first=True)
    top = min(TOP, int(model.get_output_embeddings().weight.shape[0]))
    likeliest, log_probs = [], []
    for start in range(0, len(ids), BATCH):
        part = slice(start, start + BATCH)
        inputs = {"input_ids": ids[part].to(model.device), "attention_mask": real[part].long().to(model.device)}
        found = functional.log_softmax(model(**inputs, use_cache=False).logits.float(), -1).topk(top, -1)
        likeliest.append(found.indices.cpu())
        log_probs.append(found.values.cpu())
    return OwnText(ids, real, torch.cat(likeliest), torch.cat(log_probs))
