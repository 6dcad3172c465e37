"""What a checkpoint folder holds: its weight files, its stored types, its digest.

Reads file names, JSON and safetensors headers only; no tensor is ever read and torch is not needed.
"""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

from safetensors import SafetensorError, safe_open

from knowshift.errors import InputError
from knowshift.files import atomic_file, digest_file, read_json
from knowshift.models.cache import cache_folder

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
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
        InputError: if there are none, or a shard named by the index is missing.
    """
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        shards = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(shards, dict) or not shards:
            raise InputError(f'{folder / INDEX}: no "weight_map" in this index')
        files = [folder / name for name in sorted(set(shards.values()))]
        for file in files:
            if not file.is_file():
                raise InputError(f"{file}: no such file, but {INDEX} names it")
        return files
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{folder}: no safetensors weights, only {pickles[0]}, a pickle file, which is never read: "
            "where you trust it, convert it with AutoModelForCausalLM.from_pretrained().save_pretrained()"
        )
    raise InputError(
        f"{folder}: no {SINGLE} in this folder; only safetensors are read: convert a model kept as pickle or "
        "GGUF with AutoModelForCausalLM.from_pretrained().save_pretrained()"
    )


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
    types: dict[str, str] = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    types[name] = tensors.get_slice(name).get_dtype()
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file}: not a readable safetensors file: {error}") from error
    return types


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
