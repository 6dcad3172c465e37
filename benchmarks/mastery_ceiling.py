"""How fast mastery could be scored at best on this machine: the work nobody can avoid, at the rate it can multiply.

The work: every prompt read once; every distinct continuation fed to the model once, up to where its verdict stands, an
end token or the limit. The rate: the model's own weights times bfloat16 activations, and nothing else.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from knowshift.facts.matching import Matcher


@dataclass(frozen=True)
class Shapes:
    """Multiplications of a decoder-only model.

    Attributes:
        blocks: weights inside the transformer blocks that every token is multiplied with.
        head: weights of the output layer; only positions from which a token is drawn need them.
        attention: multiply-adds of one token with one token of its past, all layers: scores and values.
    """

    blocks: int
    head: int
    attention: int


@dataclass
class Needed:
    """What must be computed for some draws; ``+`` adds up.

    Attributes:
        draws: how many draws.
        prompt_tokens: tokens of the prompts, each prompt once.
        prompts: how many prompts.
        nodes: distinct continuations that are fed to the model, one token each.
        past: tokens that those, and the prompts' own, attend to, summed.
        all_tokens: tokens of all draws if nothing were shared and nothing ended at its verdict.
    """

    draws: int = 0
    prompt_tokens: int = 0
    prompts: int = 0
    nodes: int = 0
    past: int = 0
    all_tokens: int = 0

    def __add__(self, other: "Needed") -> "Needed":
        return Needed(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def flop(self, shapes: Shapes) -> float:
        """Floating-point operations, two for each multiply-add."""
        tokens = self.prompt_tokens + self.nodes
        return 2.0 * (tokens * shapes.blocks + (self.prompts + self.nodes) * shapes.head + self.past * shapes.attention)


def needed(prompt: int, draws: Sequence[Sequence[int]], tokenizer: Any, matcher: Matcher, ends: set[int]) -> Needed:
    """The work one prompt makes.

    Args:
        prompt: its length in tokens.
        draws: token ids of its draws, made by an engine that shares nothing.
        tokenizer: turns them into text, for the verdict.
        matcher: says when a draw may end.
        ends: end tokens.
    """
    fed: set[tuple[int, ...]] = set()
    settled: dict[tuple[int, ...], bool] = {}
    for draw in draws:
        for length in range(1, len(draw)):  # the last token of a draw is never fed
            prefix = tuple(draw[:length])
            if prefix[-1] in ends:
                break
            if prefix not in settled:
                settled[prefix] = matcher.settled(tokenizer.decode(prefix, skip_special_tokens=True))
            if settled[prefix]:
                break
            fed.add(prefix)
    past = prompt * (prompt + 1) // 2 + sum(prompt + len(prefix) for prefix in fed)
    return Needed(len(draws), prompt, 1, len(fed), past, sum(map(len, draws)))


def shapes_of(model: Any) -> Shapes:
    """Count a loaded model's multiplications, from its modules."""
    head = model.get_output_embeddings().weight
    linear = sum(weight.numel() for weight in _weights(model) if weight is not head)
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shapes(linear, head.numel(), 2 * config.num_hidden_layers * config.num_attention_heads * width)


class Rate:
    """Measures how fast the machine multiplies ``rows`` activations with all of a model's weights in turn."""

    def __init__(self, model: Any) -> None:
        self._weights = _weights(model)

    def measure(self, rows: int, passes: int = 20) -> float:
        """Operations a second, the median of ``passes`` through all weights."""
        inputs = {width: torch.randn(rows, width).to(self._weights[0]) for width in {w.shape[1] for w in self._weights}}
        flop = 2.0 * rows * sum(weight.numel() for weight in self._weights)
        seconds = []
        with torch.inference_mode():
            for _ in range(passes):
                begun = time.monotonic()
                for weight in self._weights:
                    torch.nn.functional.linear(inputs[weight.shape[1]], weight)
                seconds.append(time.monotonic() - begun)
        return flop / statistics.median(seconds)


def _weights(model: Any) -> list[torch.Tensor]:
    """Every weight matrix a token is multiplied with, (outputs, inputs), in the order of the layers."""
    found = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            found.append(module.weight)
        elif type(module).__name__ == "Conv1D":  # GPT-2 keeps its weights the other way round
            found.append(module.weight.T)
    return found
