"""Top-gradient: the mask against a sort of the gradient, and every other weight the base's at every step."""

from pathlib import Path

import pytest
import torch
import train_twin as twin
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import tiny
from knowshift import models
from knowshift.errors import InputError
from knowshift.train.bits import packed, unpacked
from knowshift.train.methods.method import Keeper
from knowshift.train.trainer import Trainer
from knowshift.weights.regions import selector

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("base") / "model")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=40))
def test_masks_survive_packing(marks: list[bool]) -> None:
    mask = torch.tensor(marks, dtype=torch.bool)
    bits = packed(mask)
    assert bits.dtype == torch.uint8 and bits.numel() == -(-len(marks) // 8)
    assert torch.equal(unpacked(bits, torch.empty(len(marks))), mask)


def steepest(base: Path, share: tuple[int, int], region: str) -> dict[str, torch.Tensor]:
    """The mask by its definition: a sort of the gradient of the whole set at the base."""
    model = models.load_model(base, dtype="float32", device="cpu")
    twin.loss(model, models.load_tokenizer(base)).backward()
    inside = selector(region)
    gradients = {name: weight.grad.abs() for name, weight in model.named_parameters() if inside(name)}
    flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
    mask = torch.zeros(flat.numel(), dtype=torch.bool)
    mask[flat.argsort(descending=True, stable=True)[: flat.numel() * share[0] // share[1]]] = True
    parts = mask.split([gradient.numel() for gradient in gradients.values()])
    return {name: part.view(gradients[name].shape) for part, name in zip(parts, gradients, strict=True)}


@pytest.mark.parametrize(("share", "region"), [(("0.03", (3, 100)), "blocks"), (("0.2", (1, 5)), "mlp")])
def test_what_moves_is_what_is_steepest(
    base: Path, data: Path, tmp_path: Path, share: tuple[str, tuple[int, int]], region: str
) -> None:
    options = {"top-gradient.share": share[0], "top-gradient.region": region}
    after = twin.fit(base, data, tmp_path / "a", "top-gradient", set=options, weight_decay=0.5, learning_rate=0.1)
    before, masks = load_file(base / "model.safetensors"), steepest(base, share[1], region)
    for name, tensor in before.items():
        changed = tensor.view(torch.int16) != after[name].view(torch.int16)
        if name in masks:
            # With so long a step each chosen weight moves beyond the spacing of bfloat16.
            assert torch.equal(changed, masks[name]), name
        else:
            assert not changed.any(), name


def test_all_of_it_is_partial_fine_tuning(base: Path, data: Path, tmp_path: Path) -> None:
    ours = twin.fit(base, data, tmp_path / "a", "top-gradient", set={"top-gradient.share": 1}, weight_decay=0.1)
    options = {"freeze.regions": "blocks", "freeze.others": True}
    theirs = twin.fit(base, data, tmp_path / "b", "freeze", set=options, weight_decay=0.1)
    assert twin.equal(ours, theirs)


def test_the_mask_holds_at_every_step_under_any_optimizer(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, before = steepest(base, (1, 20), "blocks"), load_file(base / "model.safetensors")
    steps = []

    class Guard(Keeper):
        def after_update(self, model: torch.nn.Module, learning_rate: float) -> None:
            for name, weight in model.named_parameters():
                moved = weight.detach() != before[name].float()
                assert not (moved & ~masks[name] if name in masks else moved).any(), (len(steps), name)
            steps.append(learning_rate)

    usual = Trainer.__init__
    monkeypatch.setattr(
        Trainer, "__init__", lambda self, *a, keepers, **k: usual(self, *a, keepers=[*keepers, Guard()], **k)
    )
    settings = {"top-gradient.share": 0.05, "optim": "sgd", "optim_args": "momentum=0.9"}
    twin.fit(base, data, tmp_path / "a", "top-gradient", set=settings, weight_decay=0.3)
    assert len(steps) == 4


def test_the_choice_leaves_the_order_of_the_data_alone_and_has_a_seed(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(twin.write_pairs(tmp_path / "one.jsonl").read_text() * 3)
    few = {"top-gradient.share": 0.02, "top-gradient.batches": 1}
    options = {"batch_size": 3, "set": few}
    first = twin.fit(base, file, tmp_path / "a", "top-gradient", **options)
    again = twin.fit(base, file, tmp_path / "b", "top-gradient", **options)
    other = twin.fit(base, file, tmp_path / "c", "top-gradient", seed=1, **options)
    assert twin.equal(first, again)
    assert not twin.equal(first, other)
    whole = {"batch_size": 3, "set": {"top-gradient.share": 1, "top-gradient.batches": 1}}
    frozen = {"batch_size": 3, "set": {"freeze.regions": "blocks", "freeze.others": True}}
    ours = twin.fit(base, file, tmp_path / "d", "top-gradient", **whole)
    theirs = twin.fit(base, file, tmp_path / "e", "freeze", **frozen)
    assert twin.equal(ours, theirs)


def test_unknown_regions_and_empty_ones_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--set top-gradient\.region=heads: must be one of"):
        twin.fit(base, data, tmp_path / "a", "top-gradient", set={"top-gradient.region": "heads"})
    with pytest.raises(InputError, match=r"--set top-gradient\.region=re:xyz: no weight"):
        twin.fit(base, data, tmp_path / "a", "top-gradient", set={"top-gradient.region": "re:xyz"})
    with pytest.raises(InputError, match="top-gradient trains the weights themselves"):
        twin.fit(base, data, tmp_path / "a", "lora+top-gradient")
