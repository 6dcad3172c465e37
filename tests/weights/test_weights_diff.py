"""The tables of a diff against the same sums taken over sorted whole tensors."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import weights_twin as twin
from safetensors.torch import load_file, save_file

from knowshift.errors import InputError
from knowshift.files import read_json
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.diff import CURVE, PAPER_FRACTIONS, diff
from knowshift.weights.null import null_histogram, shares, untrained
from knowshift.weights.pairing import pair
from knowshift.weights.ranking import Ranking
from knowshift.weights.scores import Rule
from knowshift.weights.walk import tiles

MODULES = {
    "llama": {"q": "q_proj", "v": "v_proj", "o": "o_proj", "gate": "gate_proj", "down": "down_proj"},
    "gpt2": {"qkv": "c_attn", "o": "attn.c_proj", "up": "c_fc", "down": "mlp.c_proj"},
}


def blocks(base: Path, tuned: Path) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    left, right = twin.load(base), twin.load(tuned)
    names = [name for name in right if twin.is_block_matrix(name)]
    return names, twin.flat([left[name] for name in names]), twin.flat([right[name] for name in names])


@pytest.mark.parametrize("rank", ["relative", "absolute"])
@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("architecture", "dtype", "sharded"),
    [("llama", "bf16", False), ("qwen2", "fp32", True), ("gpt2", "fp16", True), ("gemma3", "bf16", True)],
)
def test_equals_the_slow_twin(pair_of, small_tiles, architecture, dtype, sharded, arithmetic, rank) -> None:
    base, tuned = pair_of(architecture, dtype, sharded)
    found = diff(base, tuned, arithmetic=arithmetic, rank=rank)
    names, before, after = blocks(base, tuned)
    scores = twin.score(before, after, rank, arithmetic)
    summed, squared = scores.double(), (after.double() - before.double()) ** 2
    for row in found.concentration.iter_rows(named=True):
        count = twin.floor_of(scores.numel(), row["fraction"])
        mask = twin.chosen(scores, count)
        assert row["count"] == count
        assert row["share"] == pytest.approx(float(summed[mask].sum() / summed.sum()), rel=1e-9)
        assert row["energy_share"] == pytest.approx(float(squared[mask].sum() / squared.sum()), rel=1e-9)
        assert row["paper"] == (row["fraction"] in PAPER_FRACTIONS)
    metrics = found.metrics
    bits = twin.BITS[after.dtype]
    assert metrics["parameters"] == scores.numel()
    assert metrics["changed"] == int((before.view(bits) != after.view(bits)).sum())
    assert metrics["changed_share"] == metrics["changed"] / metrics["parameters"]
    assert metrics["update_norm"] == pytest.approx(float(squared.sum().sqrt()), rel=1e-9)
    for fraction in PAPER_FRACTIONS:
        mask = twin.chosen(scores, twin.floor_of(scores.numel(), fraction))
        assert metrics["thresholds"][f"{fraction:g}"] == float(scores[mask].min())
    sizes = [twin.load(tuned)[name].numel() for name in names]
    mask = twin.chosen(scores, twin.floor_of(scores.numel(), 0.2))
    per_tensor = dict(zip(names, (int(part.sum()) for part in mask.split(sizes)), strict=True))
    for row in found.modules.iter_rows(named=True):
        word = MODULES["gpt2" if architecture == "gpt2" else "llama"]
        if row["module"] not in word:
            continue
        own = [name for name in names if f".{row['layer']}." in name and word[row["module"]] in name]
        part = sum(per_tensor[name] for name in own) / int(mask.sum())
        assert row["restored_share_0.2"] == pytest.approx(part)
        assert row["parameters"] == sum(size for name, size in zip(names, sizes, strict=True) if name in own)
        assert row["enrichment_0.2"] == pytest.approx(part / (row["parameters"] / scores.numel()))


def test_tables_add_up_and_are_written_whole(pair_of, tmp_path: Path) -> None:
    found = diff(*pair_of("llama"), fractions=("0.10", 0.5), region="all")
    found.write(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "concentration.parquet",
        "modules.parquet",
        "metrics.json",
    }
    assert pl.read_parquet(tmp_path / "out" / "modules.parquet").equals(found.modules)
    assert pl.read_parquet(tmp_path / "out" / "concentration.parquet").equals(found.concentration)
    assert read_json(tmp_path / "out" / "metrics.json") == found.metrics
    modules = found.modules
    assert modules["parameters"].sum() == found.metrics["parameters"]
    assert modules["changed"].sum() == found.metrics["changed"]
    for label in ("0.10", "0.5"):
        assert modules[f"restored_share_{label}"].sum() == pytest.approx(1)
    assert modules["layer"].null_count() == 2  # embeddings and the last norm
    curve = found.concentration
    assert curve["fraction"].is_sorted() and set(CURVE) <= set(curve["fraction"])
    assert curve["paper"].sum() == 2
    assert curve["share"][-1] == pytest.approx(1) and curve["null_share"][-1] == pytest.approx(1)
    for column in ("share", "null_share", "energy_share"):
        assert curve[column].is_sorted()
    assert diff(*pair_of("llama"), fractions=("0.10", 0.5), region="all").concentration.equals(curve)


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32", "fp16"])
def test_null_is_noise_of_the_same_norm_in_the_same_type(pair_of, dtype: str, arithmetic: str) -> None:
    base, tuned = pair_of("llama", dtype)
    pairs, _ = pair(Checkpoint.open(base), Checkpoint.open(tuned), "blocks")
    ranking = Ranking(pairs, Rule(arithmetic=arithmetic, seed=4))
    sides = []
    for tile in tiles(pairs):
        scale = float(np.sqrt(ranking.energy[tile.number] / tile.pair.size))
        before, after = untrained(tile, scale, 4)
        sides.append((torch.from_numpy(before), torch.from_numpy(after)))
        realised = float((after - before).astype(float).std())
        assert realised == pytest.approx(scale, rel=0.1)
        stored = torch.from_numpy(after)
        assert torch.equal(stored.to(twin.load(base)[tile.pair.name].dtype).float(), stored)
    before, after = (twin.flat([side[i] for side in sides]) for i in (0, 1))
    scores = twin.score(before, after, "relative", arithmetic).double()
    for count in (10, 300, 5000, scores.numel()):
        expected = float(scores[twin.chosen(scores, count)].sum() / scores.sum())
        (share,) = shares(null_histogram(ranking), np.array([count]))
        # Within the bin of the threshold every score counts as the mean: a bin is 1/128 wide.
        assert share == pytest.approx(expected, rel=1e-9 if arithmetic == "bfloat16" else 1e-3)


def test_null_of_gaussian_weights_concentrates_as_arithmetic_says(tmp_path: Path) -> None:
    """Independent Gaussian noise on Gaussian weights, with no training, puts about 70 % in the top 1 %."""
    generator = torch.Generator().manual_seed(0)
    base = (torch.randn(1000, 1000, generator=generator) * 0.02).bfloat16()
    tuned = (base.float() + torch.randn(base.shape, generator=generator) * 1e-3).bfloat16()
    for name, tensor in (("base", base), ("tuned", tuned)):
        (tmp_path / name).mkdir()
        save_file({"model.layers.0.mlp.up_proj.weight": tensor}, tmp_path / name / "model.safetensors")
    top = diff(tmp_path / "base", tmp_path / "tuned", arithmetic="bfloat16").concentration.filter(fraction=0.01)
    assert top["share"][0] == pytest.approx(top["null_share"][0], abs=0.08)
    assert 0.5 < top["null_share"][0] < 0.9


def test_warns_of_fractions_beyond_what_changed(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()
    (warning,) = diff(base, tuned).metrics["warnings"]
    assert "0.6" in warning and "0.4" not in warning and "%" in warning
    same = diff(base, base)
    assert same.metrics["warnings"] == ["the two models are identical in this region"]
    assert same.metrics["changed"] == 0 and same.concentration["share"].sum() == 0
    same.write(tmp_path)


def test_types_may_differ_base_is_read_in_the_tuned_type(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "bf16")
    (tmp_path / "wide").mkdir()
    wide = {name: tensor.float() for name, tensor in load_file(tuned / "model.safetensors").items()}
    save_file(wide, tmp_path / "wide" / "model.safetensors")
    found, expected = diff(base, tmp_path / "wide"), diff(base, tuned)
    assert found.concentration.drop("null_share").equals(expected.concentration.drop("null_share"))
    assert "stored as BF16 in base" in found.metrics["warnings"][0]


def test_only_changes_have_a_concentration(pair_of) -> None:
    with pytest.raises(InputError, match="--rank random"):
        diff(*pair_of(), rank="random")
