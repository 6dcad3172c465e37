"""Methods that work on whole tensors, each against its paper's formula written plainly."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
import weights_twin as twin

from knowshift.errors import InputError
from knowshift.files import atomic_folder
from knowshift.weights.merge import merge, write
from knowshift.weights.merge.spectrum import coefficient, noise_median

CASES = [("llama", "bf16", False), ("gpt2", "fp32", True), ("gemma3", "fp16", True), ("mixtral", "bf16", False)]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(twin.BITS[tensor.dtype])


def fapm(base: torch.Tensor, tuned: torch.Tensor, keep: float) -> torch.Tensor:
    """S = |D| - mean|W| |D| / |W|, the first floor(n * keep) of one tensor keep D."""
    left, right = base.float().flatten(), tuned.float().flatten()
    step, size = (right - left).abs(), left.abs()
    scores = step - size.double().mean().float() * (step / size)
    scores[scores.isnan()] = -torch.inf  # 0 * inf in a tensor whose base is 0 throughout
    scores[step == 0] = 0.0
    kept = twin.chosen(scores, twin.floor_of(scores.numel(), keep))
    return torch.where(kept, bits(tuned).flatten(), bits(base).flatten()).view(tuned.dtype).view_as(tuned)


@pytest.mark.parametrize(("architecture", "dtype", "sharded"), CASES)
@pytest.mark.parametrize("keep", [0.1, 0.37])
def test_fapm_is_the_formula_tensor_by_tensor(
    pair_of, small_tiles, tmp_path, architecture, dtype, sharded, keep
) -> None:
    base, tuned = pair_of(architecture, dtype, sharded)
    before, after = twin.load(base), twin.load(tuned)
    found = twin.load(merge("fapm", base, tuned, tmp_path / "out", keep=keep))
    assert twin.same_bits(found, {name: fapm(before[name], after[name], keep) for name in after})


def test_fapm_keeps_all_and_nothing(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("gpt2")
    assert twin.same_bits(twin.load(merge("fapm", base, tuned, tmp_path / "all", keep=1)), twin.load(tuned))
    assert twin.same_bits(twin.load(merge("fapm", base, tuned, tmp_path / "none", keep=0)), twin.load(base))


def test_fapm_where_base_weights_are_zero(pair_of, small_tiles, tmp_path: Path) -> None:
    """A weight that left 0 goes first; a tensor of zeros alone has no mean to compare with."""
    from safetensors.torch import load_file, save_file

    folders = []
    for side, folder in zip(("base", "tuned"), pair_of("llama", "fp32"), strict=True):
        target = tmp_path / side
        target.mkdir()
        (target / "config.json").write_bytes((folder / "config.json").read_bytes())
        tensors = load_file(folder / "model.safetensors")
        if side == "base":
            tensors["model.layers.0.mlp.down_proj.weight"][::2] = 0.0
            tensors["model.layers.1.mlp.down_proj.weight"][:] = 0.0
        else:
            tensors["model.layers.0.mlp.down_proj.weight"][:4] = 0.0
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        folders.append(target)
    before, after = map(twin.load, folders)
    found = twin.load(merge("fapm", *folders, tmp_path / "out", keep=0.6))
    name = "model.layers.0.mlp.down_proj.weight"
    assert torch.equal(found[name], fapm(before[name], after[name], 0.6))
    moved = (before[name] == 0) & (after[name] != 0)
    sound = before[name].abs() > before[name].abs().mean()
    assert not (found[name][moved] == after[name][moved]).all()
    assert (found[name][sound] == after[name][sound]).all()
    name = "model.layers.1.mlp.down_proj.weight"  # every score is minus infinity: the first go by order
    count = twin.floor_of(after[name].numel(), 0.6)
    assert torch.equal(found[name].flatten()[:count], after[name].flatten()[:count])
    assert not found[name].flatten()[count:].any()


def median_of_noise(beta: float) -> float:
    """The median singular value under the Marchenko-Pastur law, from its density, by brute force."""
    low, high = 1 - sqrt(beta), 1 + sqrt(beta)
    edges = np.linspace(low, high, 1_000_001)
    y = (edges[1:] + edges[:-1]) / 2
    mass = np.cumsum(np.sqrt((high**2 - y**2) * (y**2 - low**2)) / y)
    return float(y[np.searchsorted(mass, mass[-1] / 2)])


def dg_hard(base: torch.Tensor, tuned: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor, int]:
    """One matrix: base + the update's singular values above w(b) median(s) / median of the noise's."""
    update = tuned.double() - base.double()
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    beta = min(update.shape) / max(update.shape)
    weight = sqrt(2 * (beta + 1) + 8 * beta / ((beta + 1) + sqrt(beta**2 + 14 * beta + 1)))
    median = float(np.median(values.numpy()))
    kept = values > scale * weight * median / median_of_noise(beta)
    return base.double() + (left * torch.where(kept, values, 0.0)) @ right, int(kept.sum())


def with_signal(pair: tuple[Path, Path], folder: Path) -> Path:
    """The tuned side with rank-two updates that stand out of its noise."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(pair[1], folder)
    generator = torch.Generator().manual_seed(5)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        for tensor in tensors.values():
            if tensor.ndim == 2:
                one, two = (torch.randn(side, 2, generator=generator) for side in tensor.shape)
                tensor.copy_((tensor.float() + 0.02 * one @ two.T).to(tensor.dtype))
        save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(("architecture", "dtype", "sharded"), CASES)
def test_dg_hard_is_the_singular_value_threshold(
    pair_of, small_tiles, tmp_path, monkeypatch, architecture, dtype, sharded
) -> None:
    monkeypatch.setattr("knowshift.weights.merge.dg_hard._BLOCK", 777)
    pair = pair_of(architecture, dtype, sharded)
    tuned = with_signal(pair, tmp_path / "tuned")
    before, after = twin.load(pair[0]), twin.load(tuned)
    found = twin.load(merge("dg-hard", pair[0], tuned, tmp_path / "out"))
    kept = []
    for name, tensor in found.items():
        if tensor.ndim < 2 or tensor.numel() < 1024:
            assert torch.equal(bits(tensor), bits(after[name]))
            continue
        expected, rank = dg_hard(before[name], after[name])
        kept.append(rank)
        # Both round to the stored type; the last digits before that differ.
        step = (
            torch.finfo(tensor.dtype).eps * expected.abs()
            + torch.finfo(tensor.dtype).smallest_normal * torch.finfo(tensor.dtype).eps
            + 1e-9
        )
        assert ((tensor.double() - expected).abs() <= 1.1 * step).all(), name
        if tensor.dtype != torch.float32:
            same = (tensor == expected.to(tensor.dtype)).double().mean()
            assert same > 0.999, (name, float(same))
    assert len(kept) > 8 and min(kept) >= 2 and max(kept) < 30


def test_dg_hard_copies_bits_where_all_or_nothing_stays(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("gpt2")
    before, after = twin.load(base), twin.load(tuned)
    assert twin.same_bits(twin.load(merge("dg-hard", base, tuned, tmp_path / "all", scale=0.0)), after)
    none = twin.load(merge("dg-hard", base, tuned, tmp_path / "none", scale=1e9))
    for name, tensor in none.items():
        small = tensor.ndim < 2 or tensor.numel() < 1024
        assert torch.equal(bits(tensor), bits(after[name] if small else before[name]))


def test_dg_hard_takes_a_stack_matrix_by_matrix(tmp_path: Path, small_tiles) -> None:
    """Experts stored as one tensor are one matrix each."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    base, tuned = {}, {}
    for side, columns in (("up", 24), ("down", 90)):
        name = f"model.layers.0.mlp.experts.{side}_proj"
        base[name] = torch.randn(3, 48, columns)
        signal = torch.randn(3, 48, 1) @ torch.randn(3, 1, columns)
        tuned[name] = base[name] + 0.01 * torch.randn(3, 48, columns) + 0.05 * signal
    for side, tensors in (("base", base), ("tuned", tuned)):
        (tmp_path / side).mkdir()
        save_file(tensors, tmp_path / side / "model.safetensors", metadata={"format": "pt"})
    found = twin.load(merge("dg-hard", tmp_path / "base", tmp_path / "tuned", tmp_path / "out"))
    for name, tensor in found.items():
        for matrix in range(3):
            expected, rank = dg_hard(base[name][matrix], tuned[name][matrix])
            assert rank >= 1
            assert torch.allclose(tensor[matrix].double(), expected, rtol=1e-6, atol=1e-7)


def test_the_threshold_of_square_matrices_is_the_published_constant() -> None:
    assert coefficient(1.0) == pytest.approx(4 / sqrt(3))
    assert coefficient(1.0) / noise_median(1.0) == pytest.approx(2.858, abs=5e-4)


@pytest.mark.parametrize("beta", [0.01, 0.07, 0.25, 1 / 3, 0.5, 0.8, 0.999, 1.0])
def test_the_median_of_noise_is_that_of_its_law(beta: float) -> None:
    assert noise_median(beta) == pytest.approx(median_of_noise(beta), rel=1e-5)


def test_pure_noise_is_all_removed_and_a_signal_is_kept() -> None:
    """What the threshold is for, on matrices where the answer is known."""
    generator = np.random.default_rng(0)
    from knowshift.weights.merge.spectrum import above_threshold

    for shape in ((300, 300), (600, 150), (1000, 60)):
        noise = generator.standard_normal(shape)
        assert above_threshold([noise], shape[1], shape[0], 1.0).shape == (shape[1], 0)
        strength = 4 * sqrt(max(shape))
        one, two = (np.linalg.qr(generator.standard_normal((side, 3)))[0] for side in shape)
        halves = np.array_split(noise + strength * one @ two.T, 2)
        vectors = above_threshold(halves, shape[1], shape[0], 1.0)
        assert vectors.shape == (shape[1], 3)
        assert np.linalg.svd(two.T @ vectors)[1].min() > 0.9


@pytest.mark.parametrize(("name", "options"), [("fapm", {"keep": 0.2}), ("dg-hard", {}), ("dare", {"drop": 0.5})])
@pytest.mark.parametrize("region", ["all", "blocks"])
def test_the_card_tells_the_share_removed_as_stored(pair_of, tmp_path: Path, name, options, region) -> None:
    base, tuned = pair_of("llama", "bf16")
    written = write(name, base, tuned, tmp_path / "out", region=region, **options)
    tensors = [twin.load(side) for side in (base, tuned, written.folder)]
    names = [name for name in tensors[1] if region == "all" or twin.is_block_matrix(name)]
    left, right, here = (twin.flat([side[name] for name in names]) for side in tensors)
    update, removed = (((right.double() - other.double()) ** 2).sum() for other in (left, here))
    assert written.removed_norm_share == pytest.approx(float(removed / update), rel=1e-12)
    assert written.moved == int((bits(right) != bits(here)).sum())
    card = (written.folder / "README.md").read_text()
    assert f"| squared update removed | {float(removed / update):.4%} |" in card
    assert f"| no longer tuned | {written.moved:,} of {right.numel():,} elements |" in card


def test_the_card_is_finished_before_the_folder_has_its_name(pair_of, tmp_path: Path, monkeypatch) -> None:
    seen = []

    @contextmanager
    def watched(path: Path) -> Iterator[Path]:
        with atomic_folder(path) as partial:
            yield partial
            seen.append((partial / "README.md").read_text())

    monkeypatch.setattr("knowshift.weights.output.atomic_folder", watched)
    folder = merge("dare", *pair_of(), tmp_path / "out", drop=0.5)
    assert seen == [(folder / "README.md").read_text()] and "squared update removed" in seen[0]


def test_a_rescaled_update_beyond_the_stored_type_is_refused(pair_of, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base, tuned = pair_of("llama", "fp16")
    wide = tmp_path / "wide"
    wide.mkdir()
    tensors = load_file(tuned / "model.safetensors")
    tensors["model.norm.weight"] += 40_000
    save_file(tensors, wide / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model\.norm\.weight.*beyond the range of F16"):
        merge("dare", base, wide, tmp_path / "out", drop=0.5)
    assert not (tmp_path / "out").exists()
