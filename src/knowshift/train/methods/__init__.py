"""The ways to fine-tune, by name; one file each. Names joined by + act together."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from knowshift.errors import InputError
from knowshift.train.methods.method import Method

# Name to module and class: a method's libraries are imported when it is asked for.
METHODS = {
    "sft": "sft.Sft",
    "lora": "lora.Lora",
    "dora": "lora.Dora",
    "mofo": "mofo.Mofo",
    "self-distill": "self_distill.SelfDistill",
    "settle": "settle.Settle",
    "top-gradient": "top_gradient.TopGradient",
    "freeze": "freeze.Freeze",
    "hft": "hft.Hft",
    "l2-sp": "l2_sp.L2Sp",
    "kl-anchor": "kl_anchor.KlAnchor",
}


def chosen(text: str, given: Mapping[str, Any]) -> list[Method]:
    """The methods that ``text`` names, such as ``sft`` or ``lora+kl-anchor``, in that order.

    Args:
        text: names joined by ``+``; without ``sft`` or an adapter among them all weights are trained.
        given: options as ``METHOD.OPTION``, such as ``{"lora.rank": 8}``.

    Raises:
        InputError: an unknown name, one twice, two that cannot act together, or an option without effect.
    """
    names = [name.strip() for name in text.split("+")]
    for name in names:
        if name not in METHODS:
            raise InputError(f"--method {text}: {name!r} is unknown; choose from {', '.join(METHODS)}, joined by +")
        if names.count(name) > 1:
            raise InputError(f"--method {text}: {name} is named twice")
    options: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in given.items():
        name, _, option = key.partition(".")
        if name not in options:
            raise InputError(f"--set {key}: has no effect with --method {text}")
        options[name][option] = value
    methods = [_made(name, options[name]) for name in names]
    _check_together(text, dict(zip(names, methods, strict=True)))
    return methods


def load(name: str) -> type[Method]:
    """The class of the method called ``name``, which must be in ``METHODS``."""
    module, _, title = METHODS[name].partition(".")
    found: type[Method] = getattr(import_module(f"{__name__}.{module}"), title)
    return found


def _made(name: str, options: Mapping[str, Any]) -> Method:
    kind = load(name)
    for option in options:
        if option not in kind.model_fields:
            known = ", ".join(f"{name}.{field}" for field in kind.model_fields) or "no options"
            raise InputError(f"--set {name}.{option}: unknown; {name} has {known}")
    try:
        return kind(**options)
    except InputError as error:
        # Settings name a flag; these options are set by name.
        raise InputError(str(error).replace("--", f"--set {name}.", 1)) from error


def _check_together(text: str, methods: Mapping[str, Method]) -> None:
    adapters = [name for name, method in methods.items() if method.adapter]
    if len(adapters) > 1:
        raise InputError(f"--method {text}: {' and '.join(adapters)} each train an adapter of their own")
    if adapters and (lone := [name for name, method in methods.items() if not method.with_adapter]):
        raise InputError(f"--method {text}: {lone[0]} trains the weights themselves, {adapters[0]} an adapter")


def trains_adapter(methods: Sequence[Method]) -> bool:
    """Whether an adapter is what is trained."""
    return any(method.adapter for method in methods)
