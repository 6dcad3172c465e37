"""Who answers: one Engine protocol and its implementations."""

from knowshift.errors import InputError
from knowshift.generate.engine import Engine

ENGINES = ("transformers", "vllm")


def load_engine(model: str, engine: str = "transformers", *, tensor_parallel: int = 1) -> tuple[Engine, str]:
    """The engine for a model by name, and the digest of its checkpoint.

    Args:
        model: a folder, a hub id, an adapter folder or ``smollm2``.
        engine: ``transformers`` or ``vllm``.
        tensor_parallel: over how many devices vLLM splits each layer.

    Raises:
        InputError: if there is no such engine or model.
    """
    if engine not in ENGINES:
        raise InputError(f"--engine {engine}: not one of {', '.join(ENGINES)}")
    if tensor_parallel != 1 and engine != "vllm":
        raise InputError("--tensor-parallel is for --engine vllm")
    from knowshift.models import digest, load_model, load_tokenizer, resolve

    path = resolve(model)
    if engine == "vllm":
        from knowshift.generate.vllm_engine import VllmEngine

        return VllmEngine(path, load_tokenizer(path), tensor_parallel_size=tensor_parallel), digest(path)
    from knowshift.generate.transformers_engine import TransformersEngine

    return TransformersEngine(load_model(path), load_tokenizer(path)), digest(path)
