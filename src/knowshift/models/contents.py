"""What a checkpoint folder holds: its weight files, its stored types, its digest.

Reads file names, JSON and safetensors headers only; no tensor is ever read and torch is not needed.
"""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

from knowshift.errors import InputError
from knowshift.files import atomic_file, digest_file, read_json
from knowshift.models.cache import cache_folder
from knowshift.weights.checkpoint import INDEX, SINGLE, Checkpoint

ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*",
)


def has_weights(folder: Path) -> bool:
    """Whether the folder holds a full model's safetensors (an adapter alone does not count)."""
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in name order.

    Raises:
        InputError: if there are none, or one is missing, malformed or out of the folder.
    """
    return sorted(Checkpoint.open(folder).files)


def check(folder: Path) -> Path:
    """``folder`` itself if it is a complete checkpoint.

    Raises:
        InputError: naming what is missing.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json in this folder, so it is not a Hugging Face checkpoint")
    read_json(folder / "config.json")
    weight_files(folder)
    return folder


def stored_types(folder: Path) -> dict[str, str]:
    """The safetensors type (``BF16``, ``F32`` ...) of every tensor by its name in the checkpoint."""
    return {name: tensor.dtype for name, tensor in Checkpoint.open(folder).tensors.items()}


def main_type(folder: Path) -> str:
    """The floating-point type most tensors of the checkpoint are stored in, such as ``BF16``."""
    counts = Counter(kind for kind in stored_types(folder).values() if kind in ("F64", "F32", "F16", "BF16"))
    if not counts:
        raise InputError(f"{folder}: the weights are quantized; a checkpoint in F32, F16 or BF16 is needed")
    return counts.most_common(1)[0][0]


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files byte for byte, chat template included."""
    for file in _tokenizer_files(source):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)


def digest(path: Path) -> str:
    """``sha256:...`` over all that decides what a checkpoint folder says: names and bytes of its safetensors files,
    ``config.json``, ``generation_config.json`` (which tokens end a text) and the tokenizer's files with its chat
    templates.

    Hashing runs at disk speed; each file's hash is remembered in the user's cache under its path, size and
    time of change, so that asking again is free.
    """
    configs = (path / name for name in ("config.json", "generation_config.json", INDEX))
    files = {file for file in configs if file.is_file()} | {*weight_files(path), *_tokenizer_files(path)}
    total = hashlib.sha256()
    for name, file in sorted((file.relative_to(path).as_posix(), file) for file in files):
        total.update(f"{name}\0{_file_digest(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _tokenizer_files(folder: Path) -> list[Path]:
    """The tokenizer's files, chat templates included, each once."""
    found = {file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)}
    return sorted(file for file in found if file.is_file())


def _file_digest(file: Path) -> str:
    stat = file.stat()
    key = f"{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    note = cache_folder() / "digests" / hashlib.sha256(key.encode()).hexdigest()
    try:
        return note.read_text("ascii")
    except OSError:
        value = digest_file(file)
    try:
        with atomic_file(note) as partial:
            partial.write_text(value, "ascii")
    except (InputError, OSError):
        pass  # a read-only cache costs time, never the answer
    return value
