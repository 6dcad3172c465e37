"""Who answers: one Engine protocol and its implementations."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knowshift.generate.transformers_engine import TransformersEngine

ENGINES = ("transformers",)


def load_engine(model: str) -> "tuple[TransformersEngine, str]":
    """The engine for a model by name, and the digest of its checkpoint."""
    from knowshift.generate.transformers_engine import TransformersEngine
    from knowshift.models import digest, load_model, load_tokenizer, resolve

    path = resolve(model)
    return TransformersEngine(load_model(path), load_tokenizer(path)), digest(path)
