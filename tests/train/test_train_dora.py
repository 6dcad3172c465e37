"""DoRA, rank-stabilised LoRA and other beginnings: each is its formula, and what is written is what was trained."""

from pathlib import Path

import pytest
import torch
import train_twin as twin
from safetensors.torch import load_file

from knowshift import models
from knowshift.errors import InputError

pytestmark = pytest.mark.usefixtures("own_cache")

TARGET = "model.layers.1.self_attn.q_proj"


def adapter(base: Path, data: Path, out: Path, method: str, **options: object) -> dict[str, torch.Tensor]:
    """The matrices of an adapter that was trained and written as one, by their short names."""
    set_ = {f"{method}.{name}": value for name, value in options.items()}
    with pytest.raises(FileNotFoundError):  # what ``fit`` reads is a full checkpoint
        twin.fit(base, data, out, method, set=set_)
    found = load_file(out / "adapter_model.safetensors")
    return {name.split("lora_")[-1].removesuffix(".weight"): value for name, value in found.items() if TARGET in name}


def merged(out: Path) -> torch.Tensor:
    return load_file(models.resolve(str(out)) / "model.safetensors")[f"{TARGET}.weight"]


@pytest.mark.parametrize(("rslora", "scale"), [(False, 32 / 4), (True, 32 / 2)])
def test_lora_s_scale(base: Path, data: Path, tmp_path: Path, rslora: bool, scale: float) -> None:
    parts = adapter(base, data, tmp_path / "a", "lora", rank=4, rslora=rslora)
    weight = load_file(base / "model.safetensors")[f"{TARGET}.weight"]
    assert parts["A"].shape == (4, 32) and parts["B"].abs().max() > 0
    torch.testing.assert_close(merged(tmp_path / "a"), weight + scale * parts["B"] @ parts["A"])


def test_dora_s_direction_and_length(base: Path, data: Path, tmp_path: Path) -> None:
    parts = adapter(base, data, tmp_path / "a", "dora", rank=4)
    weight = load_file(base / "model.safetensors")[f"{TARGET}.weight"]
    moved = weight + 8 * parts["B"] @ parts["A"]
    length = parts["magnitude_vector"]
    assert (length - weight.norm(dim=1)).abs().max() > 1e-4
    expected = length[:, None] * moved / moved.norm(dim=1, keepdim=True)
    torch.testing.assert_close(merged(tmp_path / "a"), expected)


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("init", ["kaiming", "gaussian", "orthogonal", "pissa", "olora"])
def test_each_beginning_is_the_base_and_each_end_is_learned(
    base: Path, data: Path, tmp_path: Path, method: str, init: str
) -> None:
    set_ = {f"{method}.init": init, f"{method}.rank": 4}
    start = load_file(base / "model.safetensors")
    still = twin.fit(base, data, tmp_path / "a", method, set=set_, merge=True, learning_rate=1e-30, max_steps=1)
    for name, tensor in still.items():
        torch.testing.assert_close(tensor, start[name], rtol=1e-5, atol=1e-6)
    moved = twin.fit(base, data, tmp_path / "b", method, set=set_, merge=True, max_steps=8)
    assert {name for name in start if not torch.equal(start[name], moved[name])} >= {f"{TARGET}.weight"}
    tokenizer = models.load_tokenizer(base)
    with torch.no_grad():
        before, after = (
            twin.loss(models.load_model(folder, dtype="float32", device="cpu"), tokenizer)
            for folder in (base, tmp_path / "b")
        )
    assert after < before - 0.05


@pytest.mark.parametrize("init", ["gaussian", "orthogonal"])
def test_an_adapter_read_again_is_the_model_that_was_merged(base: Path, data: Path, tmp_path: Path, init: str) -> None:
    adapter(base, data, tmp_path / "a", "dora", init=init, rank=4)
    whole = twin.fit(base, data, tmp_path / "b", "dora", set={"dora.init": init, "dora.rank": 4}, merge=True)
    again = load_file(models.resolve(str(tmp_path / "a")) / "model.safetensors")
    for name, tensor in whole.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-6, atol=1e-7)


def test_an_anchor_holds_to_the_base_itself_where_the_adapter_changes_it(
    base: Path, data: Path, tmp_path: Path
) -> None:
    set_ = {"lora.init": "pissa", "lora.rank": 4, "kl-anchor.weight": 1e4, "kl-anchor.on": "all"}
    start = load_file(base / "model.safetensors")
    held = twin.fit(base, data, tmp_path / "a", "lora+kl-anchor", set=set_, merge=True, learning_rate=1e-4)
    assert max((held[name] - start[name]).abs().max() for name in start) < 1e-2


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("lora", {"init": "pissa"}, r"--set lora\.init=pissa: changes the base's weights, so it needs --merge"),
        ("dora", {"init": "orthogonal", "rank": 3}, r"--set dora\.init=orthogonal: needs an even rank"),
        ("dora", {"targets": "w"}, r"--set dora\.targets=w: no module of this model"),
        ("lora", {"init": "eva"}, r"--set lora\.init 'eva'"),
    ],
)
def test_what_cannot_be_written_is_refused(
    base: Path, data: Path, tmp_path: Path, method: str, options: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        twin.fit(base, data, tmp_path / "a", method, set={f"{method}.{n}": v for n, v in options.items()})
