"""The census of value pairs against plain counting, and everything built on it against walking element by element."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import weights_twin as twin
from polars.testing import assert_frame_equal
from safetensors.torch import save_file

from knowshift.weights.census import Census
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.diff import diff
from knowshift.weights.null import null_histogram, shares
from knowshift.weights.pairing import Pair, pair
from knowshift.weights.ranking import Ranking
from knowshift.weights.restore import restore
from knowshift.weights.scores import Rule


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count even tiny tensors, in several stretches, whatever comes of it."""
    for name, value in (("_LEAST", 1), ("_WORTH", 0), ("_FAR", 1), ("STRETCH", 700)):
        monkeypatch.setattr(f"knowshift.weights.census.{name}", value)


def one_tensor(folder: Path, base: torch.Tensor, tuned: torch.Tensor) -> list[Pair]:
    for name, tensor in (("base", base), ("tuned", tuned)):
        (folder / name).mkdir()
        save_file({"model.layers.0.mlp.up_proj.weight": tensor}, folder / name / "model.safetensors")
    return pair(Checkpoint.open(folder / "base"), Checkpoint.open(folder / "tuned"), "blocks")[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_pair_is_counted_up_to_a_common_sign(counted, small_tiles, tmp_path: Path, dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(5000, generator=generator).to(dtype)
    tuned = (base.float() + 0.02 * torch.randn(5000, generator=generator)).to(dtype)
    base[:40], tuned[20:60] = 0.0, -0.0
    base[60:70], tuned[65:75] = float("inf"), float("nan")
    census = Census(one_tensor(tmp_path, base, tuned))
    assert len(census.stretches) == 8
    before, after = (side.view(torch.int16).numpy().view(np.uint16) for side in (base, tuned))
    for _ in range(2):  # counted, then read back
        for stretch in census.stretches:
            entry = census.entry(stretch)
            assert entry is not None
            left, right = before[stretch.start : stretch.stop], after[stretch.start : stretch.stop]
            expected: dict[tuple[int, int], int] = {}
            for one, other in zip(left.tolist(), right.tolist(), strict=True):
                key = (one & 0x7FFF, other ^ (one & 0x8000))
                expected[key] = expected.get(key, 0) + 1
            found: dict[tuple[int, int], int] = {}
            for one, other, count in zip(entry.base.tolist(), entry.tuned.tolist(), entry.counts.tolist(), strict=True):
                found[one, other] = found.get((one, other), 0) + count
            assert found == expected


def test_models_far_apart_have_none(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    base, near, far = (torch.randn(100_000, generator=generator).bfloat16() for _ in range(3))
    near = base * 1.01
    (tmp_path / "far").mkdir()
    census = Census(one_tensor(tmp_path / "far", base, far))
    assert census.entry(census.stretches[0]) is None
    (tmp_path / "near").mkdir()
    other = Census(one_tensor(tmp_path / "near", base, near))
    other._counters = census._counters  # emptied, although counting was given up half way
    entry = other.entry(other.stretches[0])
    assert entry is not None and entry.counts.sum() == 100_000


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
@pytest.mark.parametrize(("architecture", "dtype"), [("llama", "bf16"), ("gemma3", "bf16"), ("gpt2", "fp16")])
def test_a_diff_is_the_same_with_and_without(
    pair_of, small_tiles, monkeypatch: pytest.MonkeyPatch, request, architecture, dtype, arithmetic
) -> None:
    sides = pair_of(architecture, dtype, True)
    walked = diff(*sides, arithmetic=arithmetic)
    request.getfixturevalue("counted")
    found = diff(*sides, arithmetic=arithmetic)
    assert_frame_equal(found.concentration.drop("null_share"), walked.concentration.drop("null_share"), rel_tol=1e-12)
    assert_frame_equal(found.modules, walked.modules)
    assert found.metrics.pop("update_norm") == pytest.approx(walked.metrics.pop("update_norm"), rel=1e-12)
    assert found.metrics == walked.metrics
    many = found.concentration["fraction"] >= 0.05  # the rest is a draw of noise on a few elements
    nulls = [side.concentration.filter(many)["null_share"] for side in (found, walked)]
    assert (nulls[0] - nulls[1]).abs().max() < 0.05


@pytest.mark.parametrize("room", [0, 5000])
def test_without_room_for_it_a_diff_is_the_same(counted, pair_of, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    found = diff(*pair_of())
    write, refused = os.pwrite, []

    def pwrite(handle: int, data: memoryview, offset: int) -> int:
        if offset + 8 > room:
            refused.append(offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[: room - offset], offset)

    monkeypatch.setattr("os.pwrite", pwrite)
    walked = diff(*pair_of())
    assert refused and (room == 0) == (min(refused) == 0)
    assert_frame_equal(found.concentration.drop("null_share"), walked.concentration.drop("null_share"), rel_tol=1e-12)
    assert_frame_equal(found.modules, walked.modules)


@pytest.mark.parametrize("order", ["top", "bottom"])
@pytest.mark.parametrize("rank", ["relative", "absolute", "base-magnitude"])
def test_restored_bits_are_the_twin_s(counted, pair_of, small_tiles, tmp_path: Path, rank: str, order: str) -> None:
    base, tuned = pair_of("qwen2", "bf16", True)
    for of in ("all", "changed"):
        for arithmetic in ("float32", "bfloat16"):
            choices = {"rank": rank, "order": order, "of": of, "arithmetic": arithmetic}
            for folder in restore(base, tuned, [0.05, 0.3, 0.8], tmp_path / of / arithmetic, **choices):
                assert twin.same_bits(twin.load(folder), twin.restored(base, tuned, folder.name, **choices))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [3e-5, 1e-3])
def test_the_null_is_what_drawing_for_every_element_gives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype, scale: float
) -> None:
    """Base magnitudes kept, Gaussian noise of the update's norm, stored in the same type: the mean of eight draws."""
    monkeypatch.setattr("knowshift.weights.census._WORTH", 0)
    monkeypatch.setattr("knowshift.weights.census._FAR", 1)
    generator = torch.Generator().manual_seed(0)
    base = (torch.randn(400_000, generator=generator) * 0.02).to(dtype)
    base[:100] = 0.0
    tuned = (base.float() + scale * torch.sign(torch.randn(base.shape, generator=generator))).to(dtype)
    for arithmetic in ("float32", "bfloat16"):
        (tmp_path / arithmetic).mkdir()
        ranking = Ranking(one_tensor(tmp_path / arithmetic, base, tuned), Rule(arithmetic=arithmetic))
        assert ranking.census.entry(ranking.census.stretches[0]) is not None
        counts = np.array([400, 4_000, 20_000, 80_000, 240_000])
        found = shares(null_histogram(ranking), counts)
        norm = float((tuned.double() - base.double()).square().mean().sqrt())
        drawn = []
        for _ in range(8):
            noisy = (base.float() + norm * torch.randn(base.shape, generator=generator)).to(dtype)
            scores = twin.score(base, noisy, "relative", arithmetic).double().sort(descending=True).values
            drawn.append([float(scores[:count].sum() / scores.sum()) for count in counts])
        mean, spread = np.mean(drawn, axis=0), np.std(drawn, axis=0, ddof=1)
        assert (np.abs(found - mean) <= 5 * spread + 2e-4).all(), (found, mean, spread)
