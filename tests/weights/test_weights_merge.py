"""Each method against its paper's formula in plain torch."""

import json
from math import sqrt
from pathlib import Path

import pytest
import torch
import weights_twin as twin

from knowshift.errors import InputError
from knowshift.weights.merge import METHODS, merge

NEEDED = {"interpolate": {"alpha": 0.5}, "layers": {"layers": "0-1"}, "modules": {"modules": "q,down"}}


def whole(folder: Path, names: list[str]) -> torch.Tensor:
    tensors = twin.load(folder)
    return twin.flat([tensors[name] for name in names])


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_interpolation_is_the_formula_rounded_once(pair_of, small_tiles, tmp_path, dtype: str, alpha: float) -> None:
    base, tuned = pair_of("gpt2", dtype, True)
    folder = merge("interpolate", base, tuned, tmp_path / "out", alpha=alpha)
    before, after, found = map(twin.load, (base, tuned, folder))
    for name, tensor in found.items():
        left, right = before[name].float(), after[name].float()
        expected = (left + torch.tensor(alpha) * (right - left)).to(tensor.dtype)
        if alpha in (0.0, 1.0):
            expected = after[name] if alpha else before[name]
        assert torch.equal(tensor, expected)


def test_interpolation_in_a_region_leaves_the_rest_tuned(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of()
    folder = merge("interpolate", base, tuned, tmp_path / "out", alpha=0.0, region="blocks")
    before, after, found = map(twin.load, (base, tuned, folder))
    assert twin.same_bits(found, {name: before[name] if twin.is_block_matrix(name) else after[name] for name in after})


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("share", [0.0, 0.09, 0.5, 0.9, 1.0])
def test_a_removed_share_is_the_share_removed_as_stored(pair_of, tmp_path: Path, dtype: str, share: float) -> None:
    base, tuned = pair_of("llama", dtype)
    folder = merge("interpolate", base, tuned, tmp_path / "out", removed_share=share, region="blocks")
    names = [name for name in twin.load(tuned) if twin.is_block_matrix(name)]
    left, right, here = (whole(path, names).double() for path in (base, tuned, folder))
    assert float(((right - here) ** 2).sum() / ((right - left) ** 2).sum()) == pytest.approx(share, rel=2e-3)
    if dtype == "fp32":  # where rounding is no matter, by the formula
        alpha = 1 - sqrt(share)
        assert torch.allclose(here, left + alpha * (right - left), atol=1e-7)
    else:  # rounded to a neighbour, on average to the interpolation
        step = (right - left).abs()
        assert ((here - torch.minimum(left, right)) >= -1e-9).all() and (
            (torch.maximum(left, right) - here) >= -1e-9
        ).all()
        alpha = float(((here - left) * (right - left)).sum() / (step**2).sum())
        assert alpha == pytest.approx(1 - sqrt(share), abs=0.2)


def test_dare_drops_the_share_and_rescales_the_rest(pair_of, small_tiles, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "fp32")
    folder = merge("dare", base, tuned, tmp_path / "out", drop=0.7, seed=2)
    names = list(twin.load(tuned))
    left, right, here = (whole(path, names) for path in (base, tuned, folder))
    rescaled = left + (right - left) / torch.tensor(1 - 0.7)
    changed = left != right
    kept = (here == rescaled) & changed
    assert ((here == left) | (here == rescaled)).all()
    assert float(kept.sum() / changed.sum()) == pytest.approx(0.3, abs=0.02)
    # The expectation of the update is kept.
    assert float((here - left).double().sum()) == pytest.approx(float((right - left).double().sum()), abs=0.3)
    again = merge("dare", base, tuned, tmp_path / "again", drop=0.7, seed=2)
    other = merge("dare", base, tuned, tmp_path / "other", drop=0.7, seed=3)
    assert torch.equal(whole(again, names), here) and not torch.equal(whole(other, names), here)
    nothing = merge("dare", base, tuned, tmp_path / "nothing", drop=0.0)
    assert twin.same_bits(twin.load(nothing), twin.load(tuned))


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_ties_trim_keeps_the_largest_changes(pair_of, small_tiles, tmp_path: Path, dtype: str) -> None:
    base, tuned = pair_of("qwen2", dtype, True)
    folder = merge("ties-trim", base, tuned, tmp_path / "out", keep=0.2)
    names = list(twin.load(tuned))
    left, right, here = (whole(path, names) for path in (base, tuned, folder))
    keep = twin.chosen(twin.score(left, right, "absolute", "float32"), twin.floor_of(left.numel(), 0.2))
    assert torch.equal(here, torch.where(keep, right, left))


def test_random_restores_the_share(pair_of, tmp_path: Path) -> None:
    base, tuned = pair_of("llama", "fp32")
    folder = merge("random", base, tuned, tmp_path / "out", fraction=0.4)
    names = list(twin.load(tuned))
    left, right, here = (whole(path, names) for path in (base, tuned, folder))
    changed = left != right
    assert ((here == left) | (here == right)).all()
    assert float(((here == left) & changed).sum() / changed.sum()) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nonsense", {}, "merge nonsense: must be one of interpolate"),
        ("interpolate", {}, "--alpha or --removed-share"),
        ("interpolate", {"alpha": 0.5, "removed_share": 0.5}, "--alpha or --removed-share"),
        ("interpolate", {"alpha": 1.5}, "--alpha 1.5"),
        ("interpolate", {"removed_share": float("nan")}, "--removed-share nan"),
        ("dare", {"drop": 1.0}, "--drop 1.0"),
        ("dare", {"alpha": 0.5}, "no option --alpha; it has --drop"),
        ("ties-trim", {"keep": -1}, "--keep -1"),
        ("random", {"fraction": 2}, "--fraction 2"),
    ],
)
def test_refuses_options_by_flag(pair_of, tmp_path: Path, name: str, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        merge(name, *pair_of(), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_nan_is_refused_by_every_method(pair_of, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    base, tuned = pair_of()
    broken = shutil.copytree(tuned, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    for name in METHODS:
        with pytest.raises(InputError, match=r"model\.norm\.weight.*NaN"):
            merge(name, base, broken, tmp_path / "out", **NEEDED.get(name, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_every_method_reproduces_from_the_command_on_its_card(pair_of, tmp_path: Path) -> None:
    """The command as the card has it, through the command line, gives the same bits."""
    import shlex

    from typer.testing import CliRunner

    from knowshift.cli import app

    for name in METHODS:
        options = NEEDED.get(name, {})
        if name in ("hft", "layers", "modules"):
            options = options | {"inverse": True}
        folder = merge(name, *pair_of(), tmp_path / name, seed=5, region="blocks", **options)
        card = (folder / "README.md").read_text()
        command = shlex.split(card.split("```")[1])
        assert command[:5] == ["knowshift", "merge", name, *map(str, pair_of())]
        before = twin.load(folder)
        result = CliRunner().invoke(app, command[1:])
        assert result.exit_code == 0, result.output
        assert twin.same_bits(twin.load(folder), before)
        record = json.loads((folder / "run.json").read_text())
        assert f"{record['removed_norm_share']:.4%}" in (folder / "README.md").read_text()
