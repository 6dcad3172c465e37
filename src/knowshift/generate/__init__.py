"""Who answers: one Engine protocol and its implementations."""

from typing import TYPE_CHECKING

from knowshift.errors import InputError

if TYPE_CHECKING:
    from knowshift.generate.transformers_engine import TransformersEngine

ENGINES = ("transformers",)


def load_engine(model: str, engine: str = "transformers") -> "tuple[TransformersEngine, str]":
    """The engine for a model by name, and the digest of its checkpoint.

    Raises:
        InputError: if there is no such engine or model.
    """
    if engine not in ENGINES:
        raise InputError(f"--engine {engine}: not one of {', '.join(ENGINES)}")
    from knowshift.generate.transformers_engine import TransformersEngine
    from knowshift.models import digest, load_model, load_tokenizer, resolve

    path = resolve(model)
    return TransformersEngine(load_model(path), load_tokenizer(path)), digest(path)
