"""knowshift: what a language model knew, what fine-tuning did to it, and how to get it back."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knowshift.train.knowledge.callback import KnowledgeCallback as KnowledgeCallback

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # They need torch and transformers, which nothing else here may wait for.
    if name == "repair":
        from importlib import import_module

        return import_module("knowshift.repair")
    if name == "KnowledgeCallback":
        from knowshift.train.knowledge.callback import KnowledgeCallback

        return KnowledgeCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
