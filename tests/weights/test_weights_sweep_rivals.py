"""Every rival in a loaded model: what the written folder loads as, on every architecture, and the tuned bits back."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import weights_twin as twin
from transformers import AutoModelForCausalLM

import tiny
from knowshift.errors import InputError
from knowshift.weights.loaded import Loaded
from knowshift.weights.merge import METHODS, merge
from knowshift.weights.restore import restore
from knowshift.weights.sweep import Info, Sweep

CASES = [
    ("llama-untied", "fp16", True),
    ("gpt2", "fp32", True),
    ("gemma3", "bf16", True),
    ("mixtral", "bf16", False),
    ("phi3", "bf16", False),
]
STEPS: dict[str, dict] = {
    "interpolate": {"alpha": 0.4},
    "random": {"fraction": 0.3},
    "dare": {"drop": 0.6},
    "ties-trim": {"keep": 0.3},
    "fapm": {"keep": 0.2},
    "dg-hard": {"scale": 0.7},
    "hft": {},
    "layers": {"layers": "1"},
    "modules": {"modules": "down,o,qkv,q,up"},
}


def loaded(folder: Path, dtype: str | torch.dtype = "auto") -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def present(modules: str, folder: Path) -> str:
    """Those of ``modules`` that the model has."""
    from knowshift.weights.regions import classify

    known = {classify(name).module for name in twin.load(folder)}
    return ",".join(module for module in modules.split(",") if module in known)


@pytest.mark.parametrize(("architecture", "dtype", "sharded"), CASES)
@pytest.mark.parametrize("disk", [True, False], ids=["tuned-on-disk", "tuned-in-memory"])
def test_holds_what_every_method_writes(pair_of, tmp_path, monkeypatch, architecture, dtype, sharded, disk) -> None:
    assert STEPS.keys() == METHODS.keys()
    monkeypatch.setattr("knowshift.weights.walk.TILE", 1000)
    base, tuned = pair_of(architecture, dtype, sharded)
    model = loaded(tuned)
    before = state(model)
    sweep = Sweep(model, base, tuned if disk else None, region="all", seed=4)
    for name, options in STEPS.items():
        if name == "modules":
            options = {"modules": present(options["modules"], tuned)}
        folder = merge(name, base, tuned, tmp_path / name, region="all", seed=4, **options)
        with sweep.holding(name, **options) as info:
            assert twin.same_bits(state(model), state(loaded(folder))), name
            assert not twin.same_bits(state(model), before), name
        assert twin.same_bits(state(model), before), name
        parts = [twin.load(side) for side in (base, tuned, folder)]
        left, right, here = (twin.flat([part[key] for key in parts[1]]).double() for part in parts)
        share = float(((right - here) ** 2).sum() / ((right - left) ** 2).sum())
        assert info.method == name and info.removed_norm_share == pytest.approx(share, rel=1e-9)
    (folder,) = restore(base, tuned, [0.2], tmp_path, region="mlp", order="bottom")
    with sweep.holding("relative", fraction=0.2, order="bottom", region="mlp"):
        assert twin.same_bits(state(model), state(loaded(folder)))
    assert twin.same_bits(state(model), before)


@pytest.mark.parametrize("architecture", ["gemma3", "mixtral"])
def test_both_models_may_be_loaded(pair_of, tmp_path: Path, architecture: str) -> None:
    base, tuned = pair_of(architecture, "bf16")
    model, other = loaded(tuned), loaded(base)
    before, untouched = state(model), state(other)
    sweep = Sweep(model, other)
    for rank, order in (("relative", "top"), ("absolute", "bottom"), ("random", "top")):
        (folder,) = restore(base, tuned, ["0.15"], tmp_path, rank=rank, order=order)
        with sweep.restored(rank, "0.15", order) as info:
            assert twin.same_bits(state(model), state(loaded(folder)))
            assert 0 <= info.removed_norm_share < 1 and info.count > 0
        assert twin.same_bits(state(model), before)
    assert twin.same_bits(state(other), untouched)


def test_a_model_in_float32_is_its_own_tuned_side(pair_of, tmp_path: Path) -> None:
    """Trained in memory in another type than base is stored in: as if it had been saved."""
    base, tuned = pair_of("qwen2", "bf16")
    model = loaded(tuned, torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(tmp_path / "saved")
    before = state(model)
    sweep = Sweep(model, base)
    for rank, fraction in (("relative", 0.2), ("base-magnitude", 0.5)):
        (folder,) = restore(base, tmp_path / "saved", [fraction], tmp_path, rank=rank)
        with sweep.restored(rank, fraction):
            assert twin.same_bits(state(model), state(loaded(folder)))
        assert twin.same_bits(state(model), before)


@pytest.mark.parametrize("disk", [True, False], ids=["tuned-on-disk", "tuned-in-memory"])
def test_a_walk_ends_in_the_tuned_bits_whatever_happens(pair_of, small_tiles, monkeypatch, disk: bool) -> None:
    base, tuned = pair_of("mixtral", "bf16")
    model = loaded(tuned)
    before = state(model)
    sweep = Sweep(model, base, tuned if disk else None)
    steps = [("relative", {"fraction": fraction}) for fraction in (0.0, 0.1, 0.5, 1)]
    steps += [("fapm", {"keep": 0.1}), ("interpolate", {"removed_share": 0.3})]
    seen = sweep.through(steps, lambda info: (info, state(model)))
    assert [info.method for info, _ in seen] == ["relative"] * 4 + ["fapm", "interpolate"]
    assert twin.same_bits(seen[0][1], before) and twin.same_bits(state(model), before)
    assert all(not twin.same_bits(held, before) for _, held in seen[1:])
    shares = [info.removed_norm_share for info, _ in seen[:4]]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1)

    def fails(info: Info) -> None:
        if info.fraction == 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.through(steps, fails)
    assert twin.same_bits(state(model), before)

    # In the middle of putting weights in, after some tiles.
    from knowshift.weights import placing

    real, writes, broken = placing.write, itertools.count(), [40]

    def breaks(*arguments) -> None:
        if next(writes) in broken:
            raise OSError("gone")
        real(*arguments)

    monkeypatch.setattr(placing, "write", breaks)
    with pytest.raises(OSError, match="gone"), sweep.restored("relative", 0.5):
        pass
    assert next(writes) > 40 and twin.same_bits(state(model), before)

    # In the middle of putting them back: the next step begins by finishing that.
    with pytest.raises(OSError, match="gone"), sweep.restored("relative", 0.1):
        broken[0] = next(writes) + 20
    assert not twin.same_bits(state(model), before)
    with sweep.restored("relative", 0.0):
        assert twin.same_bits(state(model), before)
    assert twin.same_bits(state(model), before)


def test_holds_the_old_bits_of_what_differs_and_no_more(pair_of) -> None:
    base, tuned = pair_of("llama", "bf16")
    model = loaded(tuned)
    sweep = Sweep(model, base)
    with sweep.merged("layers", layers="0"):
        kept = sweep._live._old
        left, right = twin.load(base), twin.load(tuned)
        names = [name for name in right if ".layers.0." in name and twin.is_block_matrix(name)]
        differ = sum(int((left[name].view(torch.int16) != right[name].view(torch.int16)).sum()) for name in names)
        assert {name for name, _ in kept} == set(names)
        assert sum(old.size for _, _, old in kept.values()) == differ
    assert not sweep._live._old


def test_experts_that_are_stored_stacked_are_found_too(tmp_path: Path, pair_of) -> None:
    """A file may hold the names and shapes of the loaded model itself."""
    base, tuned = pair_of("mixtral", "bf16")
    for source, target in ((base, tmp_path / "base"), (tuned, tmp_path / "tuned")):
        loaded(source).save_pretrained(target, save_original_format=False)
    assert any(tensor.ndim == 3 for tensor in twin.load(tmp_path / "tuned").values())
    (folder,) = restore(tmp_path / "base", tmp_path / "tuned", [0.3], tmp_path)
    model = loaded(tmp_path / "tuned")
    with Sweep(model, tmp_path / "base", tmp_path / "tuned").restored("relative", 0.3):
        assert twin.same_bits(state(model), state(loaded(folder)))


def test_a_grown_vocabulary_keeps_its_new_rows(pair_of, tmp_path: Path) -> None:
    base, _ = pair_of("gemma3", "bf16")
    model = loaded(base)
    model.resize_token_embeddings(416)
    model.save_pretrained(tmp_path / "grown")
    tuned = tiny.nudge(tmp_path / "grown", tmp_path / "tuned", scale=0.002)
    model = loaded(tuned)
    before = state(model)
    for side in (tuned, None):
        sweep = Sweep(model, base, side, region="embeddings")
        (folder,) = restore(base, tuned, [0.5], tmp_path, region="embeddings")
        with sweep.restored("relative", 0.5):
            assert twin.same_bits(state(model), state(loaded(folder)))
        with sweep.merged("dg-hard", scale=1e9):
            embeddings = model.get_input_embeddings().weight
            assert torch.equal(embeddings[:400], loaded(base).get_input_embeddings().weight)
            assert torch.equal(embeddings[400:], before["model.embed_tokens.weight"][400:])
        assert twin.same_bits(state(model), before)


def test_a_head_stored_beside_the_embeddings_it_is_tied_to(pair_of, tmp_path: Path) -> None:
    """Other tools store both; the model has one."""
    import shutil

    from safetensors.torch import load_file, save_file

    folders = []
    for side, folder in zip(("base", "tuned"), pair_of("llama", "bf16"), strict=True):
        target = shutil.copytree(folder, tmp_path / side)
        tensors = load_file(target / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        folders.append(target)
    model = loaded(folders[1])
    before = state(model)
    with Sweep(model, *folders, region="embeddings").restored("relative", 1):
        assert torch.equal(model.lm_head.weight, loaded(folders[0]).lm_head.weight)
        assert not torch.equal(model.lm_head.weight, before["lm_head.weight"])
    assert twin.same_bits(state(model), before)


def test_refuses_what_it_cannot_change_in_place(pair_of, monkeypatch) -> None:
    base, tuned = pair_of("mixtral", "bf16")
    model = loaded(tuned)
    with pytest.raises(InputError, match="is the tuned model itself"):
        Sweep(model, model)
    with pytest.raises(InputError, match="merge nonsense"), Sweep(model, base, tuned).merged("nonsense"):
        pass
    with pytest.raises(InputError, match="--layers 7"), Sweep(model, base).merged("layers", layers="7"):
        pass
    with pytest.raises(InputError, match="is offloaded"):
        Sweep(loaded(tuned).to("meta"), base, tuned)
    # Experts laid out in a way that is computed, not moved, cannot be followed.
    monkeypatch.setattr("knowshift.weights.placing._View", type("Copied", (torch.Tensor,), {}))
    with pytest.raises(InputError, match=r"rearranges tensor '.*experts.*' as it loads it.*write a checkpoint"):
        Sweep(model, base, tuned)
    with pytest.raises(InputError, match="give the checkpoint's folder"):
        Sweep(model, base)


def test_what_was_read_is_not_changed_by_what_is_written_after(pair_of) -> None:
    """Methods that need whole tensors go on with what they read while other threads write to the model."""
    _, tuned = pair_of("llama")
    model = loaded(tuned)
    side = Loaded(model)
    name = "model.layers.0.mlp.up_proj.weight"
    before = side.read(name)
    kept = before.copy()
    with torch.inference_mode():
        model.get_parameter(name).zero_()
    assert np.array_equal(before, kept) and not np.array_equal(side.read(name), kept)
