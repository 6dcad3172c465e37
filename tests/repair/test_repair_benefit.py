"""Benefit of taking updates back: effects as differences of losses tell them, masks as sorting makes them."""

import numpy as np
import pytest
import torch
from test_repair_coefficients import lessons_of, taught

import tiny
from knowshift.errors import InputError
from knowshift.repair.benefit import MOST, Benefit, Gains, candidates, measure, thresholds
from knowshift.repair.objective import Kind
from knowshift.weights.bits import decode
from knowshift.weights.sweep import Sweep
from knowshift.weights.walk import tiles

KINDS: tuple[Kind, ...] = tuple(MOST)
INF = float("inf")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benefit")
    torch.manual_seed(0)
    base = taught(folder / "base")
    return base, tiny.nudge(base, folder / "tuned", scale=0.03, share=1.0)


@pytest.fixture
def loaded(pair):
    lessons = lessons_of(pair[1])
    return lessons, Sweep(lessons.model, *pair, region="all")


def effects(folder, pairs):
    """e_i of both losses by tensor, as they lie on disk."""
    found, start = {}, 0
    for entry in pairs:
        for kind in KINDS:
            bits = np.fromfile(folder / f"benefit-{kind}.bf16", np.uint16, entry.size, offset=2 * start)
            found[kind, entry.name] = decode(bits, "BF16")
        start += entry.size
    return found


def read(lessons, kind):
    return range(min(MOST[kind], len(lessons.passages[kind])))


def test_one_point_is_the_first_order_effect(pair, loaded, tmp_path):
    lessons, sweep = loaded
    measure(sweep, lessons, tmp_path, points=(1.0,))
    found = effects(tmp_path, sweep.pairs)
    assert all(parameter.grad is None for parameter in lessons.model.parameters())
    base = lessons_of(pair[0]).model.state_dict()
    rng = np.random.default_rng(0)
    model = lessons.model.double()  # the slow twin: each weight moved on its own, a little to either side
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"):
        parameter = model.get_parameter(name)
        update = (base[name].double() - parameter.detach()).flatten()
        for kind in KINDS:
            size = np.abs(found[kind, name])
            for place in rng.choice(np.argsort(size)[-20:], 3):
                sides = []
                for step in (0.5, -0.5):
                    with torch.no_grad():
                        before = parameter.flatten()[place].clone()
                        parameter.view(-1)[place] += step * update[place]
                        sides.append(sum(float(part) for part in lessons._parts(kind, read(lessons, kind))))
                        parameter.view(-1)[place] = before
                slow = (sides[0] - sides[1]) / len(read(lessons, kind))
                assert found[kind, name][place] == pytest.approx(slow, rel=0.03, abs=3e-6), (name, kind)


def test_points_on_the_way_add_up_to_the_change_of_the_loss(pair, loaded, tmp_path):
    lessons, sweep = loaded
    other = lessons_of(pair[0])
    points = [(number + 0.5) / 8 for number in range(8)]
    for folder, own in ((tmp_path / "way", points), (tmp_path / "end", [1.0])):
        folder.mkdir()
        measure(sweep, lessons, folder, points=own)
    for kind in KINDS:
        change = other.loss(kind, read(lessons, kind)) - lessons.loss(kind, read(lessons, kind))
        way, end = (
            sum(float(found[kind, entry.name].sum(dtype=np.float64)) for entry in sweep.pairs)
            for found in (effects(tmp_path / "way", sweep.pairs), effects(tmp_path / "end", sweep.pairs))
        )
        assert change < -0.1, "nothing was lost to begin with"
        assert way == pytest.approx(change, rel=0.05)
        assert abs(end - change) > abs(way - change)


def test_masks_are_those_of_sorting_and_the_same_on_disk(pair, loaded, tmp_path):
    lessons, sweep = loaded
    made = candidates(sweep, lessons, tmp_path, 0, INF)
    assert len({each.name for each in made}) == len(made) >= 6
    found = effects(tmp_path, sweep.pairs)
    base, before = lessons_of(pair[0]).model.state_dict(), {k: v.clone() for k, v in lessons.model.state_dict().items()}
    size = sum(entry.size for entry in sweep.pairs)
    for each in made:
        weight, share = each.settings["weight"], each.settings["share"]
        gain = np.concatenate([
            -(found["knowledge", entry.name] + np.float32(weight) * found["task", entry.name]) for entry in sweep.pairs
        ])  # fmt: skip
        order = np.sort(gain[gain > 0])[::-1]
        least = order[min(int(size * share), len(order)) - 1]
        taken = gain >= least if (gain >= least).sum() <= int(size * share) else gain > least
        start = 0
        with each.within(sweep):
            now = {name: value.clone() for name, value in lessons.model.state_dict().items()}
        for entry in sweep.pairs:
            mask = torch.from_numpy(taken[start : start + entry.size]).view(now[entry.name].shape)
            assert torch.equal(now[entry.name], torch.where(mask, base[entry.name], before[entry.name])), each.name
            start += entry.size
        each.write(*pair, tmp_path / "written" / each.name, "---\ntags:\n- knowshift\n---\n")
        written = lessons_of(tmp_path / "written" / each.name).model.state_dict()
        assert all(torch.equal(value, now[name]) for name, value in written.items()), each.name
    assert all(torch.equal(value, before[name]) for name, value in lessons.model.state_dict().items())


def test_harm_planted_in_few_weights_is_taken_back(pair, tmp_path):
    """Harm in 1 % of the weights is mostly gone when the 2 % that gain most go back."""
    base = pair[0]
    tuned = tiny.nudge(base, tmp_path / "tuned", scale=1e-3, share=1.0)
    lessons = lessons_of(tuned)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in lessons.model.parameters():
            harmed = torch.rand(parameter.shape, generator=generator) < 0.01
            parameter += harmed * torch.randn(parameter.shape, generator=generator) * 0.8
    lessons.model.save_pretrained(tuned)
    whole = lessons_of(base)
    sweep = Sweep(lessons.model, base, tuned, region="all")
    made = {each.name: each for each in candidates(sweep, lessons, tmp_path, 0, INF)}
    some = range(30)  # those that the base learned
    known, harmed = whole.loss("knowledge", some), lessons.loss("knowledge", some)
    with made["benefit-1-0.02"].within(sweep):
        repaired = lessons.loss("knowledge", some)
    assert harmed > known + 2 and repaired < known + 0.2 * (harmed - known)


def test_what_is_measured_is_not_measured_again(loaded, tmp_path, monkeypatch):
    lessons, sweep = loaded
    first = candidates(sweep, lessons, tmp_path, 0, 0.0)  # no time: on the fewest
    monkeypatch.setattr(lessons, "backward", None)
    assert candidates(sweep, lessons, tmp_path, 0, 0.0) == first
    (tmp_path / "benefit-task.bf16").write_bytes(b"12")
    with pytest.raises(InputError, match=r"benefit-task\.bf16: is not of these models"):
        candidates(sweep, lessons, tmp_path, 0, 0.0)


def test_equal_gains_go_together_and_none_below_zero(loaded, tmp_path):
    _, sweep = loaded
    size = sum(entry.size for entry in sweep.pairs)
    effect = np.zeros(size, np.float32)
    effect[:10], effect[10:40], effect[40:50] = -2, -1, 3
    (tmp_path / "benefit-knowledge.bf16").write_bytes((effect.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    (tmp_path / "benefit-task.bf16").write_bytes(np.zeros(size, np.uint16).tobytes())
    shares = [5 / size, 12 / size, 40 / size, 1.0]
    least = thresholds(sweep.pairs, tmp_path, 1.0, shares)
    gains = Gains(tmp_path, sweep.pairs, 1.0)
    taken = [sum(int((gains(tile) >= np.float32(each)).sum()) for tile in tiles(sweep.pairs)) for each in least]
    assert taken == [0, 10, 40, 40] and least[0] == INF and least[2] == least[3] > 0
    with sweep.made("x", Benefit(tmp_path, 1.0, 2.0), region="all") as info:
        assert info.count == 10
