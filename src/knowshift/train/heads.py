"""A causal language model in two halves while it trains: final states caught as they are computed, and its head.

Logits of a whole batch (tokens x vocabulary) never exist; who needs them makes a few rows at a time.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Module

from knowshift.errors import InputError


def causal(model: Module) -> Any:
    """The causal language model within what adapters and trainers put around it."""
    found: Any = model
    while not hasattr(found, "get_output_embeddings") or hasattr(found, "get_base_model"):
        found = found.get_base_model() if hasattr(found, "get_base_model") else getattr(found, "module", None)
        if found is None:
            raise TypeError(f"{type(model).__name__} holds no causal language model")
    return found


def first_halves(model: Any) -> list[Module]:
    """What computes the final states: some models call the decoder in their base model, and not that itself."""
    return [half for half in dict.fromkeys((model.base_model, model.get_decoder())) if half is not model]


class Head:
    """The second half as a function of its own parameters, in float32 whatever autocast says.

    Args:
        model: a causal language model of transformers. ``check`` says whether its logits are made as here.
    """

    def __init__(self, model: Any) -> None:
        self.module: Module = model.get_output_embeddings()
        config = model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.scale = _scale(config)

    def parameters(self) -> list[Tensor]:
        """Weight and bias in the order ``__call__`` takes."""
        return [parameter.float() for parameter in self.module.parameters()]

    def __call__(self, states: Tensor, parameters: list[Tensor]) -> Tensor:
        """(n, vocabulary) logits of (n, hidden) states."""
        named = dict(zip((name for name, _ in self.module.named_parameters()), parameters, strict=True))
        with torch.autocast(states.device.type, enabled=False):
            logits = cast(Tensor, torch.func.functional_call(self.module, named, (states.float(),))) * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    @torch.no_grad()
    def check(self, model: Any) -> None:
        """Compare with the model's own logits for two tokens.

        Raises:
            InputError: if they differ.
        """
        body = Body(model)
        ids = torch.arange(1, 3, device=model.get_input_embeddings().weight.device)[None]
        expected = model(input_ids=ids, use_cache=False).logits.float()
        body.close()
        states = body.take().states if body.caught else None
        if states is None or not torch.allclose(self(states, self.parameters()), expected, rtol=1e-3, atol=1e-3):
            raise InputError(f"{type(model).__name__}: the head of this architecture cannot be run apart from its body")


class Caught:
    """What a body computed: (batch, tokens, hidden) states, and the type autocast had it compute in, if any."""

    def __init__(self, states: Tensor) -> None:
        device = states.device.type
        self.states = states
        self.autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


class Body:
    """The first half of a model, by hooks on it: whoever calls the model, its last final states are here.

    Args:
        model: a causal language model of transformers, or what wraps one.

    Attributes:
        caught: what was computed last and not taken since.
    """

    def __init__(self, model: Module) -> None:
        self.whole = causal(model)
        self.caught: Caught | None = None
        self._hooks = [half.register_forward_hook(self._catch) for half in first_halves(self.whole)]
        short = "logits_to_keep" in inspect.signature(type(self.whole).forward).parameters
        self._few = {"logits_to_keep": 1} if short else {}

    def _catch(self, module: Module, inputs: Any, output: Any) -> None:
        if hasattr(output, "last_hidden_state"):
            self.caught = Caught(output.last_hidden_state)

    def take(self) -> Caught:
        """What was caught last, which is then forgotten."""
        caught, self.caught = self.caught, None
        assert caught is not None
        return caught

    def read(self, model: Module, inputs: dict[str, Any]) -> Caught:
        """Call ``model``, the wrapped one, for its states alone; logits are made for one token where it can."""
        model(**inputs, use_cache=False, **self._few)
        return self.take()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return cast(torch.device, self.whole.device)

    def close(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()


def places(inputs: dict[str, Any], on: str) -> Tensor:
    """Which positions of a training batch predict a token of ``on``: ``prompts``, ``completions`` or ``all``.

    Returns:
        (batch, tokens) booleans. The last position of a text predicts nothing that was given.
    """
    labels = inputs["labels"]
    real = torch.ones_like(labels, dtype=torch.bool)
    if inputs.get("attention_mask") is not None:
        real &= inputs["attention_mask"].bool()
    if inputs.get("position_ids") is not None:
        # In a row of several texts each begins at position 0, which nothing of its own predicts.
        real &= inputs["position_ids"] != 0
    learned = labels != -100
    # A row that teaches nothing fills up the last batch of an epoch.
    real &= learned.any(dim=1, keepdim=True)
    following = {"prompts": real & ~learned, "completions": learned, "all": real | learned}[on]
    return torch.nn.functional.pad(following[:, 1:], (0, 1))


def _scale(config: Any) -> float:
    """What a model multiplies its logits by, under the names architectures have for it."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    scaling = getattr(config, "logits_scaling", None)
    if scaling is None:
        return 1.0
    return float(scaling if config.model_type == "hyperclovax" else 1 / scaling)
