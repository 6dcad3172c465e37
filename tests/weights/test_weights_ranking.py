"""Thresholds, ties and masks against sorting, for any data, fraction, order and cut into tiles."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import weights_twin as twin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from knowshift.errors import InputError
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.diff import PAPER_FRACTIONS
from knowshift.weights.pairing import pair
from knowshift.weights.ranking import Ranking, exact, spelled
from knowshift.weights.scores import Rule
from knowshift.weights.taken import take
from knowshift.weights.walk import tiles

NAMES = (
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
)


def written(folder: Path, tensors: list[torch.Tensor]) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    save_file(
        {name: tensor.clone() for name, tensor in zip(NAMES, tensors, strict=False)}, folder / "model.safetensors"
    )
    return Checkpoint.open(folder)


def masks(ranking: Ranking, fractions) -> list[np.ndarray]:
    taken = take(ranking, ranking.cuts([exact(fraction) for fraction in fractions]))
    parts: list[list[np.ndarray]] = [[] for _ in taken]
    for tile in tiles(ranking.pairs):
        keys = tile.score(ranking.rule).keys
        for part, entry in zip(parts, taken, strict=True):
            part.append(entry.mask(tile, keys))
    found = [np.concatenate(part) for part in parts]
    for entry, mask in zip(taken, found, strict=True):
        assert mask.sum() == entry.cut.count == entry.counts.sum()
    return found


# Few different values, so that ties are everywhere; zeros of both signs; sizes around a tile.
sides = st.lists(
    st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, 1.0078125, 3.0, 1e-8, 65504.0]), min_size=300, max_size=300
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=sides,
    tuned=sides,
    cuts=st.lists(st.integers(0, 300), min_size=1, max_size=2).map(sorted),
    fractions=st.lists(st.decimals(0, 1, places=3).map(str), min_size=1, max_size=4),
    rank=st.sampled_from(["relative", "absolute", "base-magnitude"]),
    order=st.sampled_from(["top", "bottom"]),
    arithmetic=st.sampled_from(["float32", "bfloat16"]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
)
def test_equals_sorting(small_tiles, tmp_path, base, tuned, cuts, fractions, rank, order, arithmetic, dtype) -> None:
    left, right = (torch.tensor(side).to(dtype) for side in (base, tuned))
    bounds = [0, *cuts, 300]
    split = [slice(a, b) for a, b in pairwise(bounds)]
    folders = [
        written(tmp_path / name, [side[part] for part in split]) for name, side in (("base", left), ("tuned", right))
    ]
    pairs, _ = pair(*folders, "blocks")
    ranking = Ranking(pairs, Rule(rank, order, "all", arithmetic))
    # Tensors stand in the order of the file, which is not the order of NAMES.
    whole = [twin.flat([twin.load(folder.folder)[entry.name] for entry in pairs]) for folder in folders]
    scores = twin.score(*whole, rank, arithmetic)
    for fraction, mask in zip(fractions, masks(ranking, fractions), strict=True):
        expected = twin.chosen(scores, twin.floor_of(300, fraction), order)
        assert np.array_equal(mask, expected.numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
def test_restores_what_topk_of_the_relative_change_restores(tmp_path: Path, dtype, arithmetic: str) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(700, 300), (300, 700), (41, 1000)]
    base = [(torch.randn(shape, generator=generator) * 0.02).to(dtype) for shape in shapes]
    tuned = [(x.float() + torch.randn(x.shape, generator=generator) * 3e-4).to(dtype) for x in base]
    pairs, _ = pair(written(tmp_path / "a", base), written(tmp_path / "b", tuned), "blocks")
    ranking = Ranking(pairs, Rule(arithmetic=arithmetic))
    place = [NAMES.index(entry.name) for entry in pairs]
    scores = twin.score(
        twin.flat([base[i] for i in place]), twin.flat([tuned[i] for i in place]), "relative", arithmetic
    )
    for fraction, mask in zip(PAPER_FRACTIONS, masks(ranking, PAPER_FRACTIONS), strict=True):
        count = twin.floor_of(scores.numel(), fraction)
        top = torch.topk(scores, count)
        assert mask.sum() == count
        # Above the smallest of the top k the sets must be the same; at it, topk may take any.
        above = (scores > top.values.min()).numpy()
        assert above[np.flatnonzero(mask)].sum() == above.sum()
        assert np.array_equal(np.sort(scores.float().numpy()[mask]), np.sort(top.values.float().numpy()))


def test_random_ranking_takes_exact_nested_spread_out_sets(small_tiles, tmp_path: Path) -> None:
    base = [torch.zeros(900, 30), torch.zeros(100, 30)]
    folders = written(tmp_path / "a", base), written(tmp_path / "b", [side + 1 for side in base])
    ranking = Ranking(pair(*folders, "blocks")[0], Rule(rank="random", seed=3))
    tenth, half = masks(ranking, (0.1, 0.5))
    assert tenth.sum() == 3_000 and half.sum() == 15_000 and not (tenth & ~half).any()
    assert abs(tenth[:3000].sum() - 300) < 80
    other = masks(Ranking(ranking.pairs, Rule(rank="random", seed=4)), (0.1,))[0]
    assert 150 < (other & tenth).sum() < 450


def test_fractions_of_the_changed_elements_only_count_those(small_tiles, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(4000, generator=generator)
    tuned = torch.where(torch.rand(4000, generator=generator) < 0.3, base * 1.1, base)
    tuned[7], base[7] = -0.0, 0.0  # bits differ, the score does not
    pairs, _ = pair(written(tmp_path / "a", [base]), written(tmp_path / "b", [tuned]), "blocks")
    changed = (base.view(torch.int32) != tuned.view(torch.int32)).numpy()
    for rank in ("relative", "base-magnitude", "random"):
        ranking = Ranking(pairs, Rule(rank=rank, of="changed"))
        half, everything = masks(ranking, (0.5, 1))
        assert np.array_equal(everything, changed)
        assert half.sum() == changed.sum() // 2 and not (half & ~changed).any()


def test_identical_models_have_nothing_changed_to_take(tmp_path: Path) -> None:
    folders = [written(tmp_path / name, [torch.ones(50)]) for name in "ab"]
    ranking = Ranking(pair(*folders, "blocks")[0], Rule(of="changed"))
    assert [mask.sum() for mask in masks(ranking, (0, 0.5, 1))] == [0, 0, 0]


@pytest.mark.parametrize("size", [0, 1])
def test_tensors_without_elements_and_scalars(tmp_path: Path, size: int) -> None:
    tensors = [torch.zeros(0, 4) if size == 0 else torch.tensor(2.0), torch.ones(10)]
    folders = written(tmp_path / "a", tensors), written(tmp_path / "b", [tensors[0] + 1, tensors[1] + 1])
    (mask,) = masks(Ranking(pair(*folders, "blocks")[0], Rule()), (1,))
    assert mask.sum() == 10 + size


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", ["base", "tuned"])
def test_nan_and_infinity_are_named_and_counted(tmp_path: Path, value: float, side: str) -> None:
    clean, broken = torch.ones(5, 5), torch.ones(5, 5)
    broken[0, 0] = broken[3, 1] = value
    base, tuned = (broken, clean) if side == "base" else (clean, broken)
    folders = written(tmp_path / "base", [clean, base]), written(tmp_path / "tuned", [clean, tuned])
    with pytest.raises(InputError, match=rf"{side}.*'{NAMES[1]}' holds 2 NaN or infinite"):
        Ranking(pair(*folders, "blocks")[0], Rule())


@pytest.mark.parametrize("side", ["base", "tuned"])
@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
def test_of_all_65536_patterns_256_are_no_numbers(tmp_path: Path, side: str, arithmetic: str) -> None:
    every, ones = torch.arange(1 << 16).to(torch.uint16).view(torch.bfloat16), torch.ones(1 << 16).bfloat16()
    base, tuned = (every, ones) if side == "base" else (ones, every)
    folders = written(tmp_path / "base", [base]), written(tmp_path / "tuned", [tuned])
    with pytest.raises(InputError, match=rf"{side}.*'{NAMES[0]}' holds 256 NaN or infinite values"):
        Ranking(pair(*folders, "blocks")[0], Rule(arithmetic=arithmetic))


def test_changes_beyond_float32_are_refused(tmp_path: Path) -> None:
    folders = written(tmp_path / "a", [torch.tensor([0.0, 1.0])]), written(tmp_path / "b", [torch.tensor([1e36, 1.0])])
    with pytest.raises(InputError, match="beyond the range"):
        Ranking(pair(*folders, "blocks")[0], Rule())


@pytest.mark.parametrize("text", ["1e-999999999", "0e-999999999", "0e999999999", "-0", "+.0", "1e-41"])
def test_fractions_too_small_for_any_model_take_nothing_and_no_time(text: str) -> None:
    assert exact(text) == 0


@pytest.mark.parametrize(
    "text", ["1e999999999", "1_0e-2", "\u0660.\u0662", "0.1\n2", "0x1", "1/5", "", ".", "sNaN", "0." + "1" * 300, "20%"]
)
def test_what_is_no_fraction_is_one_short_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^--fraction .*must be a number from 0 to 1") as caught:
        exact(text)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("typed", "folder"),
    [(".5", "0.5"), ("+0.25", "0.25"), (" 0.20 ", "0.20"), ("1E-3", "1E-3"), (0.3, "0.3"), ("-0", "0")],
)
def test_folders_are_named_as_typed_and_never_hidden(typed: object, folder: str) -> None:
    assert spelled(typed) == folder and exact(folder) == exact(typed)


def test_fractions_are_decimals_not_floats() -> None:
    assert exact(0.03) * 100 == 3 and exact("0.07") * 100 == 7 and exact("1e-2") * 100 == 1
    assert int(100 * exact(0.29)) == 29 and int(100 * 0.29) == 28
    for wrong in (1.5, -0.1, float("nan"), float("inf"), "a", "", "1/3", None):
        with pytest.raises(InputError, match="--fraction"):
            exact(wrong)


def test_the_number_of_threads_changes_nothing(pair_of, monkeypatch, small_tiles) -> None:
    pairs, _ = pair(*map(Checkpoint.open, pair_of("qwen2", "fp32", True)), "all")
    found = []
    for threads in (1, 5):
        monkeypatch.setattr("knowshift.weights.walk.threads", lambda threads=threads: threads)
        ranking = Ranking(pairs, Rule())
        entries = take(ranking, ranking.cuts([exact(fraction) for fraction in PAPER_FRACTIONS]))
        found.append([(entry.cut, entry.energy, entry.counts.tolist(), entry.end) for entry in entries])
    assert found[0] == found[1]
