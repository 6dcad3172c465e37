"""Restorations in a loaded model: the same bits as the written folder, and the tuned bits back afterwards."""

from pathlib import Path

import pytest
import torch
import weights_twin as twin
from transformers import AutoModelForCausalLM

from knowshift.errors import InputError
from knowshift.weights.merge import merge
from knowshift.weights.restore import restore
from knowshift.weights.sweep import Sweep

CASES = [
    ("llama", "bf16", False),
    ("llama-untied", "fp16", True),
    ("gpt2", "fp32", True),
    ("gemma3", "bf16", True),
    ("qwen2", "bf16", False),
]


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def loaded(folder: Path, dtype: str | torch.dtype = "auto") -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


@pytest.mark.parametrize(("architecture", "dtype", "sharded"), CASES)
def test_holds_what_restore_writes_and_gives_the_tuned_bits_back(
    pair_of, tmp_path, architecture, dtype, sharded
) -> None:
    base, tuned = pair_of(architecture, dtype, sharded)
    model = loaded(tuned)
    before = state(model)
    sweep = Sweep(model, base, tuned)
    for rank in ("relative", "absolute", "base-magnitude", "random"):
        for order in ("top", "bottom"):
            (folder,) = restore(base, tuned, [0.2], tmp_path, rank=rank, order=order)
            with sweep.restored(rank, 0.2, order) as info:
                assert twin.same_bits(state(model), state(loaded(folder)))
            assert twin.same_bits(state(model), before)
            assert (info.method, info.fraction, info.alpha) == (rank, 0.2, None)
            parts = [twin.load(side) for side in (base, tuned, folder)]
            names = [name for name in parts[1] if twin.is_block_matrix(name)]
            left, right, here = (twin.flat([part[name] for name in names]).double() for part in parts)
            assert info.count == twin.floor_of(left.numel(), 0.2)
            share = float(((right - here) ** 2).sum() / ((right - left) ** 2).sum())
            assert info.removed_norm_share == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("options", [{"alpha": 0.3}, {"removed_share": 0.4}])
def test_holds_what_merge_writes(pair_of, tmp_path: Path, dtype: str, options: dict) -> None:
    base, tuned = pair_of("llama", dtype)
    model = loaded(tuned)
    before = state(model)
    folder = merge("interpolate", base, tuned, tmp_path / "out", region="blocks", seed=3, **options)
    with Sweep(model, base, tuned, seed=3).interpolated(**options) as info:
        assert twin.same_bits(state(model), state(loaded(folder)))
    assert twin.same_bits(state(model), before)
    names = [name for name in twin.load(tuned) if twin.is_block_matrix(name)]
    left, right, here = (
        twin.flat([twin.load(side)[name] for name in names]).double() for side in (base, tuned, folder)
    )
    share = float(((right - here) ** 2).sum() / ((right - left) ** 2).sum())
    assert info.removed_norm_share == pytest.approx(share, rel=1e-9)
    if "removed_share" in options:
        assert share == pytest.approx(options["removed_share"], rel=2e-3)
    else:
        assert info.alpha == 0.3


@pytest.mark.parametrize("architecture", ["llama", "mixtral"])
def test_a_model_in_another_type_gets_the_stored_weights_cast(pair_of, tmp_path: Path, architecture: str) -> None:
    base, tuned = pair_of(architecture, "bf16")
    model = loaded(tuned, torch.float32)
    (folder,) = restore(base, tuned, [0.2], tmp_path)
    with Sweep(model, base, tuned).restored("relative", 0.2):
        assert twin.same_bits(state(model), state(loaded(folder, torch.float32)))
    assert twin.same_bits(state(model), state(loaded(tuned, torch.float32)))


def test_the_tuned_bits_come_back_after_an_error(pair_of) -> None:
    base, tuned = pair_of()
    model = loaded(tuned)
    before = state(model)
    sweep = Sweep(model, base, tuned, arithmetic="bfloat16")
    with pytest.raises(ZeroDivisionError), sweep.restored("relative", 0.5):
        assert not twin.same_bits(state(model), before)
        _ = 1 // 0
    assert twin.same_bits(state(model), before)
    with (
        pytest.raises(RuntimeError, match="one restoration at a time"),
        sweep.restored("relative", 0.5),
        sweep.interpolated(0.5),
    ):
        pass
    assert twin.same_bits(state(model), before)


def test_outputs_change_and_come_back(pair_of) -> None:
    base, tuned = pair_of("llama", "fp32")
    model, tokens = loaded(tuned), torch.arange(20)[None]
    with torch.inference_mode():
        before = model(tokens).logits.clone()
        with Sweep(model, base, tuned, region="all").restored("relative", 1):
            assert torch.equal(model(tokens).logits, loaded(base)(tokens).logits)
        assert torch.equal(model(tokens).logits, before)


def test_refuses_a_model_that_is_not_the_tuned_one(pair_of) -> None:
    base, tuned = pair_of()
    with pytest.raises(InputError, match="differs from the loaded model"):
        Sweep(loaded(base), base, tuned)
    with pytest.raises(InputError, match="has no parameter"):
        Sweep(loaded(pair_of("gpt2")[1]), base, tuned)
    with pytest.raises(InputError, match="--fraction"), Sweep(loaded(tuned), base, tuned).restored("relative", 1.5):
        pass
