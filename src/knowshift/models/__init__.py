"""Names to checkpoints: path, hub id, embedded default, adapter merged onto its base.

From here on every model is a plain Hugging Face folder: ``config.json``, safetensors, tokenizer files.
Importing this package imports neither torch nor transformers, so commands that only read weights stay light.
"""

from knowshift.models.contents import digest
from knowshift.models.load import default_device, has_bf16, load_model, load_tokenizer, same_tokenizer
from knowshift.models.names import EMBEDDED, resolve

__all__ = [
    "EMBEDDED",
    "default_device",
    "digest",
    "has_bf16",
    "load_model",
    "load_tokenizer",
    "resolve",
    "same_tokenizer",
]
