"""Freeze: what is named stays bit for bit, everything else is trained, and what names nothing is refused."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import tiny
from knowshift import models
from knowshift.errors import InputError
from knowshift.train import run
from knowshift.train.methods import chosen
from knowshift.train.methods.method import Run
from knowshift.train.options import TrainOptions

pytestmark = pytest.mark.usefixtures("own_cache")

PAIRS = [(f"<|question|>What is {word}?<|answer|>", word[::-1]) for word in ("Peru", "Japan", "France", "the book")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in PAIRS * 2))
    return file


def changed(base: Path, data: Path, out: Path, method: str = "freeze", **options: object) -> set[str]:
    """Train hard, weight decay and all; the names of the tensors that moved."""
    options = {"learning_rate": 1e-2, "batch_size": 4, "weight_decay": 0.1, "bf16": False} | options
    run.train(TrainOptions(model=str(base), data=data, out=out, method=method, **options))
    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def trained(base: Path, **options: object) -> set[str]:
    """What would be trained, without training."""
    model = models.load_model(base, dtype="float32", device="cpu")
    settings = {f"freeze.{name}": value for name, value in options.items()}
    (method,) = chosen("freeze", settings)
    run_ = TrainOptions(model=str(base), data=base, out=base, method="freeze", set=settings)
    method.prepare(model, Run(base, None, [], run_))
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_frozen_weights_are_the_base_s_bit_for_bit_and_the_others_move(
    base_folder: Path, data: Path, tmp_path: Path
) -> None:
    everything = set(load_file(base_folder / "model.safetensors"))
    assert changed(base_folder, data, tmp_path / "a") == {name for name in everything if "attn" not in name}
    options = {"set": {"freeze.regions": "attention", "freeze.others": True}}
    assert changed(base_folder, data, tmp_path / "b", **options) == {name for name in everything if "attn" in name}


def test_frozen_embeddings_pass_gradients_through_checkpointed_blocks(
    base_folder: Path, data: Path, tmp_path: Path
) -> None:
    options = {"set": {"freeze.regions": "embeddings"}, "max_steps": 2}
    plain = changed(base_folder, data, tmp_path / "a", **options)
    assert plain == set(load_file(base_folder / "model.safetensors")) - {"model.embed_tokens.weight"}
    assert plain == changed(base_folder, data, tmp_path / "b", gradient_checkpointing=True, **options)
    logs = [pl.read_parquet(tmp_path / name / "train_log.parquet") for name in "ab"]
    assert logs[0]["loss"].to_list() == pytest.approx(logs[1]["loss"].to_list(), rel=1e-6)


def test_regions_modules_and_layers_meet(tmp_path: Path) -> None:
    base = tiny.checkpoint(tmp_path / "a", "llama-untied", layers=4)
    everything = trained(base, regions="re:^nothing-but-this|lm_head") | {"lm_head.weight"}
    assert everything == set(load_file(base / "model.safetensors"))

    def frozen(**options: object) -> set[str]:
        return everything - trained(base, **options)

    def named(*parts: str) -> set[str]:
        return {name for name in everything if all(part in name for part in parts)}

    assert frozen(regions="attention,embeddings") == named("attn") | named("embed") | named("lm_head")
    assert frozen(regions="mlp,re:layers\\.(0,?|3)\\.self") == named("mlp") | named("s.0.self") | named("s.3.self")
    assert frozen(modules="q,down") == named("q_proj") | named("down_proj")
    assert frozen(layers="0-1,3") == named("layers.") - named("layers.2.")
    assert frozen(layers=2) == frozen(layers=[2]) == frozen(layers="2") == named("layers.2.")
    assert frozen(layers="1-2", modules="v") == named("s.1.", "v_proj") | named("s.2.", "v_proj")
    assert frozen(layers="0", regions="mlp") == named("s.0.mlp")
    assert frozen(layers="0", regions="mlp", others=True) == everything - named("s.0.mlp")


def test_a_tied_head_follows_its_embedding(base_folder: Path) -> None:
    assert "model.embed_tokens.weight" not in trained(base_folder, regions="re:lm_head")
    assert trained(base_folder, regions="re:lm_head", others=True) == {"model.embed_tokens.weight"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regions": "heads"}, r"--set freeze\.regions=heads: must be one of blocks, attention"),
        ({"regions": "re:("}, r"--set freeze\.regions=re:\(: not a regular expression"),
        ({"regions": "mlp,re:vision"}, r"freeze\.regions=mlp,re:vision: no weight of this model is in re:vision"),
        ({"modules": "q,w"}, r"--set freeze\.modules=q,w: 'w' is none of .*q, "),
        ({"layers": "0-2"}, r"--set freeze\.layers=0-2: '0-2' is not within 0-1"),
        ({"layers": "1-0"}, r"freeze\.layers=1-0: '1-0' is not within 0-1"),
        ({"layers": "first"}, r"'first' is no block or range"),
        ({"layers": "-1"}, r"'-1' is no block or range"),
        ({"layers": "0", "regions": "embeddings"}, r"no weight of this model is in all of"),
        ({"regions": "all"}, r"--method freeze: all weights are frozen, nothing is left to train"),
        ({"regions": "all", "others": True}, r"freezes nothing of this model"),
        ({"layers": ""}, r"--set freeze\.layers"),
    ],
)
def test_what_cannot_be_frozen_is_refused(base_folder: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        trained(base_folder, **options)
    assert "\n" not in str(caught.value)


def test_an_adapter_and_freezing_are_refused_together() -> None:
    with pytest.raises(InputError, match=r"freeze trains the weights themselves, lora an adapter"):
        chosen("lora+freeze", {})
