"""What a name stands for, and the one clear line for a name that stands for nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from knowshift.errors import InputError
from knowshift.models import digest, load_model, load_tokenizer, resolve, same_tokenizer
from knowshift.models.contents import main_type, stored_types, weight_files


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(folder))
    return folder


def refused(name: object) -> str:
    with pytest.raises(InputError) as caught:
        resolve(str(name))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_checkpoint_folder_is_itself(base_folder: Path) -> None:
    assert resolve(str(base_folder)) == base_folder


def test_a_sharded_folder_is_itself_and_loads(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "sharded", shard_size="40KB")
    assert len(weight_files(folder)) > 1
    assert resolve(str(folder)) == folder
    load_model(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "sharded", shard_size="40KB")
    lost = weight_files(folder)[1]
    lost.unlink()
    assert lost.name in refused(folder)


def test_folder_without_config(base_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(base_folder, tmp_path / "model", dirs_exist_ok=True)
    (tmp_path / "model" / "config.json").unlink()
    assert "no config.json" in refused(tmp_path / "model")


def test_pickle_only_folder_says_how_to_convert(base_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    shutil.copy(base_folder / "config.json", tmp_path / "model")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    message = refused(tmp_path / "model")
    assert "pytorch_model.bin" in message and "save_pretrained" in message


def test_folder_with_nothing_but_config(base_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    shutil.copy(base_folder / "config.json", tmp_path / "model")
    assert "no model.safetensors" in refused(tmp_path / "model")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", ""])
def test_paths_that_do_not_exist(name: str) -> None:
    assert "no such model folder" in refused(name)


def test_a_file_is_not_a_model(base_folder: Path) -> None:
    assert "this is a file" in refused(base_folder / "config.json")


def test_a_name_no_hub_could_have() -> None:
    assert "neither a folder nor a model name" in refused("not a model!")


def test_unknown_model_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    message = refused("nobody/no-such-model")
    assert "HF_HUB_OFFLINE is set" in message and "nobody/no-such-model" in message


def test_a_model_in_the_hub_cache_needs_no_network(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository, commit = tmp_path / "hub" / "models--team--tiny", "0123456789abcdef" * 2 + "01234567"
    shutil.copytree(base_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = resolve("team/tiny")
    assert found == repository / "snapshots" / commit == resolve(f"team/tiny@{commit}")
    assert digest(found) == digest(base_folder)


def test_truncated_weights_are_refused(base_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "model"))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="model"):
        load_model(folder)
    with pytest.raises(InputError, match=r"model\.safetensors: truncated"):
        stored_types(folder)


def test_a_missing_tensor_never_becomes_a_random_one(base_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = Path(shutil.copytree(base_folder, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"missing.*layers\.1\.mlp\.up_proj\.weight"):
        load_model(folder)


def test_a_tensor_of_another_shape(base_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(InputError):
        load_model(folder)


def test_unknown_architecture(base_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "model"))
    (folder / "config.json").write_text(json.dumps({"model_type": "of_the_future"}))
    with pytest.raises(InputError, match="of_the_future"):
        load_model(folder)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_architecture_loads_as_it_was_written(tmp_path: Path, architecture: str) -> None:
    folder = tiny.checkpoint(tmp_path / "model", architecture)
    loaded = load_model(folder, dtype="float32", device="cpu")
    assert not loaded.training and loaded.dtype == torch.float32
    state = loaded.state_dict()
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(state[name], tensor.float())


def test_dtype_is_checked(base_folder: Path) -> None:
    with pytest.raises(InputError, match="float12"):
        load_model(base_folder, dtype="float12")


def test_digest_follows_the_content_not_the_name(base_folder: Path, tuned_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(base_folder, tmp_path / "copy"))
    assert digest(copy) == digest(base_folder) != digest(tuned_folder)
    (copy / "README.md").write_text("no part of the model")
    assert digest(copy) == digest(base_folder)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert digest(copy) != digest(base_folder)


def test_digest_without_a_writable_cache(base_folder: Path, own_cache: Path) -> None:
    known = digest(base_folder)
    shutil.rmtree(own_cache)
    own_cache.write_text("a file where the folder should be")
    assert digest(base_folder) == known


def test_main_type(tmp_path: Path) -> None:
    assert main_type(tiny.checkpoint(tmp_path / "a")) == "BF16"
    assert main_type(tiny.checkpoint(tmp_path / "b", dtype=torch.float32)) == "F32"


def test_same_tokenizer(base_folder: Path, tuned_folder: Path, tmp_path: Path) -> None:
    same_tokenizer(base_folder, tuned_folder)
    longer = tiny.tokenizer()
    longer.add_tokens(["<extra>"])
    longer.save_pretrained(tmp_path / "longer")
    with pytest.raises(InputError, match=r"\d+ and \d+ tokens"):
        same_tokenizer(base_folder, tmp_path / "longer")


def test_swapped_tokens_are_named(base_folder: Path, tmp_path: Path) -> None:
    tiny.tokenizer().save_pretrained(tmp_path / "swapped")
    text = json.loads((tmp_path / "swapped" / "tokenizer.json").read_text())
    vocabulary = text["model"]["vocab"]
    by_id = {index: token for token, index in vocabulary.items()}
    vocabulary[by_id[7]], vocabulary[by_id[9]] = 9, 7
    (tmp_path / "swapped" / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(InputError, match="token 7 is"):
        same_tokenizer(base_folder, tmp_path / "swapped")


def test_another_beginning_token(base_folder: Path, tmp_path: Path) -> None:
    other = tiny.tokenizer()
    other.bos_token = "<|end|>"
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="beginning-of-sequence"):
        same_tokenizer(base_folder, tmp_path / "other")


def test_other_splitting_of_the_same_vocabulary(base_folder: Path, tmp_path: Path) -> None:
    tiny.tokenizer().save_pretrained(tmp_path / "other")
    text = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    text["model"]["merges"] = text["model"]["merges"][:3]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(InputError, match="split into different tokens"):
        same_tokenizer(base_folder, tmp_path / "other")


def test_folder_without_tokenizer(base_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(base_folder / "config.json", folder)
    with pytest.raises(InputError, match="no tokenizer"):
        load_tokenizer(folder)


def test_importing_models_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, knowshift.models; print({'torch', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
