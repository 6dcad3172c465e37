"""Experts stored one by one on one side and stacked on the other, as transformers itself writes them both ways."""

from pathlib import Path

import numpy as np
import pytest
import torch
import weights_twin as twin
from safetensors.torch import load_file, save_file

import tiny
from knowshift.errors import InputError
from knowshift.weights.checkpoint import SINGLE, Checkpoint
from knowshift.weights.diff import diff
from knowshift.weights.merge import merge
from knowshift.weights.pairing import pair
from knowshift.weights.patch import apply
from knowshift.weights.restore import restore

KINDS = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v3", "jamba", "granitemoe")
FORMS = ("hub", "own")  # as the hub has it, and as the model has it in memory


@pytest.fixture(scope="module", params=KINDS)
def sides(request, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Base and tuned of a model type, each in both forms."""
    folder = tmp_path_factory.mktemp(request.param)
    model = tiny.specimen(request.param)
    made = {}
    for side in ("base", "tuned"):
        for form in FORMS:
            made[side, form] = folder / side / form
            model.save_pretrained(made[side, form], save_original_format=form == "hub")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.002 * torch.randn(parameter.shape)
    return made


@pytest.mark.parametrize("form", FORMS)
def test_base_is_read_in_the_tuned_form(sides, form: str) -> None:
    other = FORMS[1 - FORMS.index(form)]
    assert load_file(sides["base", form] / SINGLE).keys() != load_file(sides["base", other] / SINGLE).keys()
    expected = twin.load(sides["base", form])
    pairs, notes = pair(Checkpoint.open(sides["base", other]), Checkpoint.open(sides["tuned", form]), "all")
    assert {entry.name for entry in pairs} == expected.keys()
    assert notes == ["base stores experts in another form: they are compared in the tuned model's"]
    draw = np.random.default_rng(0)
    for entry in pairs:
        bits = expected[entry.name].view(twin.BITS[expected[entry.name].dtype]).flatten().numpy()
        assert np.array_equal(entry.base_bits(0, entry.size).view(bits.dtype), bits)
        for start, stop in np.sort(draw.integers(0, entry.size + 1, (8, 2))).tolist():
            entry.prefetch(start, stop)
            assert np.array_equal(entry.base_bits(start, stop).view(bits.dtype), bits[start:stop])


@pytest.mark.parametrize("form", FORMS)
def test_everything_is_as_with_base_in_the_tuned_form(sides, tmp_path: Path, form: str) -> None:
    tuned, same = sides["tuned", form], sides["base", form]
    other = sides["base", FORMS[1 - FORMS.index(form)]]
    assert diff(same, tuned).concentration.equals(diff(other, tuned).concentration)
    (expected,) = restore(same, tuned, ["0.3"], tmp_path / "same")
    (found,) = restore(other, tuned, ["0.3"], tmp_path / "other")
    assert (found / SINGLE).read_bytes() == (expected / SINGLE).read_bytes()
    (patch,) = restore(other, tuned, ["0.3"], tmp_path / "patch", patch=True)
    assert (apply(patch, tuned, tmp_path / "applied") / SINGLE).read_bytes() == (expected / SINGLE).read_bytes()
    merged = [merge("dg-hard", base, tuned, tmp_path / f"merged{n}") / SINGLE for n, base in enumerate((same, other))]
    assert merged[0].read_bytes() == merged[1].read_bytes()


def lose_one(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.layers.1.block_sparse_moe.experts.2.w3.weight"]


def swap_sides(tensors: dict[str, torch.Tensor]) -> None:
    for name in tensors:
        if ".experts." in name:
            tensors[name] = tensors[name].T.contiguous()


def retype(tensors: dict[str, torch.Tensor]) -> None:
    name = "model.layers.1.block_sparse_moe.experts.2.w3.weight"
    tensors[name] = tensors[name].float()


@pytest.mark.parametrize("change", [lose_one, swap_sides, retype])
@pytest.mark.parametrize("stacked", ["base", "tuned"])
def test_what_does_not_fit_is_refused_and_said(tmp_path: Path, change, stacked: str) -> None:
    model = tiny.specimen("mixtral")
    for form in FORMS:
        model.save_pretrained(tmp_path / form, save_original_format=form == "hub")
    tensors = load_file(tmp_path / "hub" / SINGLE)
    change(tensors)
    save_file(tensors, tmp_path / "hub" / SINGLE)
    sides = (tmp_path / "own", tmp_path / "hub") if stacked == "base" else (tmp_path / "hub", tmp_path / "own")
    if change is retype and stacked == "base":  # each expert is a tensor of its own, and may have a type of its own
        assert any("stored as BF16 in base" in note for note in pair(*map(Checkpoint.open, sides), "all")[1])
        return
    with pytest.raises(InputError, match="experts are stored one by one in one model and stacked in the other"):
        pair(*map(Checkpoint.open, sides), "blocks")


def test_other_numbers_of_experts_are_named(tmp_path: Path) -> None:
    tiny.specimen("mixtral").save_pretrained(tmp_path / "base")
    tensors = load_file(tmp_path / "base" / SINGLE)
    (tmp_path / "tuned").mkdir()
    kept = {name: tensor for name, tensor in tensors.items() if ".experts.3." not in name}
    save_file(kept, tmp_path / "tuned" / SINGLE)
    with pytest.raises(InputError, match=r"experts\.3\.w1\.weight', .* and 3 more missing, which \S+ has$"):
        pair(*map(Checkpoint.open, (tmp_path / "base", tmp_path / "tuned")), "all")
