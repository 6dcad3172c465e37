"""What may be learned from: known facts and task items of the search part, with the loss of their right answers.

A fact is asked as it is measured, after the solved examples; an item as the user wrote it. The loss of either is the
mean over what is asked of -log p(right answer | prompt), in nats an answer. Where answers must be exact, the end token
is part of a task's answer: who goes on talking is wrong. Texts are read packed where the model allows it
(``generate.packed``). Knows the model and tokens; not which weights are moved, or why.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from knowshift.generate.encode import continuations, encode
from knowshift.generate.engine import Prompt
from knowshift.generate.packed import as_texts, batches_of, can_pack, pack, packing
from knowshift.measure.forms import continuation, put
from knowshift.measure.passages import Passage, batches
from knowshift.repair.knowledge import FORM
from knowshift.repair.objective import Kind, Objective

# Tokens that go through the model together, forwards and back.
TOKENS = 1024
# By how much a loss of packed texts may differ from that of the texts alone, relatively: rounding.
ROUNDING = 0.02


class Lessons:
    """Facts and items of search, as tokens.

    Args:
        model: a loaded causal language model.
        tokenizer: its own.
        objective: what is measured; only its search part is looked at.

    Attributes:
        passages: by kind, in the objective's order.
    """

    def __init__(self, model: Any, tokenizer: Any, objective: Objective) -> None:
        self.model = model
        facts, items = objective.facts["search"], objective.items["search"]
        asked = [put(fact.question, FORM, objective.shots) for fact in facts]
        end = tokenizer.eos_token_id if objective.metric == "exact" else None
        texts = [item.completions[0].removesuffix(tokenizer.eos_token or "\0") for item in items]
        self.passages: dict[Kind, list[Passage]] = {
            "knowledge": _passages(tokenizer, asked, [continuation(fact.answers[0], FORM) for fact in facts], None),
            "task": _passages(tokenizer, [item.prompt for item in items], texts, end),
        }
        every = [passage for own in self.passages.values() for passage in own]
        self._packs = can_pack(model, max(len(passage.ids) for passage in every)) and self._alike()

    def loss(self, kind: Kind, numbers: Sequence[int]) -> float:
        """The mean loss of some of ``passages[kind]``, in nats an answer."""
        with torch.no_grad():
            return sum(float(part) for part in self._parts(kind, numbers)) / len(numbers)

    def backward(self, kind: Kind, numbers: Sequence[int], weight: float = 1.0) -> float:
        """Add to every weight's ``grad`` that of the mean loss, times ``weight``; returns the mean loss itself."""
        total = 0.0
        with torch.enable_grad():
            for part in self._parts(kind, numbers):
                torch.autograd.backward(part * (weight / len(numbers)))
                total += float(part.detach())
        return total / len(numbers)

    def _parts(self, kind: Kind, numbers: Sequence[int]) -> Iterator[Tensor]:
        """The summed loss of one batch after the other."""
        chosen = [self.passages[kind][number] for number in numbers]
        if self._packs:
            # Each with its targets behind it, so that those who begin alike stand together.
            for group in batches_of([passage.ids for passage in chosen], TOKENS):
                yield self._packed([chosen[number] for number in group])
        else:
            for group in batches([passage.ids for passage in chosen], TOKENS):
                yield self._padded([chosen[number] for number in group])

    def _packed(self, passages: Sequence[Passage]) -> Tensor:
        packed = pack([passage.ids for passage in passages])
        keep = torch.cat(
            [
                row[len(passage.ids) - passage.kept : len(passage.ids)]
                for row, passage in zip(packed.places, passages, strict=True)
            ]
        )
        device = self.model.device
        with packing(self.model), as_texts(packed.to(device)):
            ids, positions = packed.ids.to(device), packed.positions.to(device)
            logits = self.model(input_ids=ids, position_ids=positions, use_cache=False, **self._only(keep)).logits[0]
        return _summed(logits if self._only(keep) else logits[keep], passages)

    def _padded(self, passages: Sequence[Passage]) -> Tensor:
        width = max(len(passage.ids) for passage in passages)
        ids = torch.tensor([[*passage.ids, *[0] * (width - len(passage.ids))] for passage in passages])
        real = torch.tensor([[1] * len(passage.ids) + [0] * (width - len(passage.ids)) for passage in passages])
        device = self.model.device
        logits = self.model(input_ids=ids.to(device), attention_mask=real.to(device), use_cache=False).logits
        rows = [
            own[len(passage.ids) - passage.kept : len(passage.ids)]
            for own, passage in zip(logits, passages, strict=True)
        ]
        return _summed(torch.cat(rows), passages)

    def _alike(self) -> bool:
        """Whether two texts, packed, have the loss that they have alone."""
        two = self.passages["knowledge"][:2]
        with torch.no_grad():
            together, apart = float(self._packed(two)), sum(float(self._padded([each])) for each in two)
        return abs(together - apart) <= ROUNDING * (1 + abs(apart))

    def _only(self, keep: Tensor) -> dict[str, Tensor]:
        """Logits of these positions alone are made, where the model can leave the others out."""
        known = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        return {"logits_to_keep": keep.to(self.model.device)} if known else {}


def _passages(tokenizer: Any, prompts: Sequence[Prompt], answers: Sequence[str], end: int | None) -> list[Passage]:
    found = []
    for asked, own in zip(encode(tokenizer, prompts), continuations(tokenizer, prompts, answers), strict=True):
        targets = (*own, end) if end is not None else tuple(own)
        found.append(Passage((*asked, *targets[:-1]), len(targets), targets))
    return found


def _summed(logits: Tensor, passages: Sequence[Passage]) -> Tensor:
    """-log p of all targets, (targets of all in turn, vocabulary) summed."""
    targets = torch.tensor([token for passage in passages for token in passage.targets], device=logits.device)
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
