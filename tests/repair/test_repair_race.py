"""The race on planted scores: the schedule, the frontier against a slow twin, and who goes on."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import scores

from knowshift.repair.frontier import frontier, hypervolume, layers, spread
from knowshift.repair.race import chances, rounds, survivors
from knowshift.repair.scores import side_by_side

POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


def beaten(point, by):
    return by[0] >= point[0] and by[1] >= point[1] and by != point


@given(POINTS)
def test_frontier_and_layers_equal_their_slow_twins(points):
    array = np.array(points, float)
    assert frontier(array).tolist() == [not any(beaten(point, other) for other in points) for point in points]
    left, expected, layer = set(range(len(points))), [0] * len(points), 0
    while left:
        front = {index for index in left if not any(beaten(points[index], points[other]) for other in left)}
        for index in front:
            expected[index] = layer
        left -= front
        layer += 1
    assert layers(array).tolist() == expected


@given(POINTS)
def test_hypervolume_counts_cells(points):
    cells = {(x, y) for a, b in points for x in range(1, a) for y in range(2, b)}
    assert hypervolume(np.array(points, float), (1.0, 2.0)) == len(cells)


def test_spread_is_widest_at_the_ends_and_where_it_is_empty():
    points = np.array([[0, 10], [1, 9], [2, 8], [6, 4], [10, 0]], float)
    apart = spread(points)
    assert np.isinf(apart[[0, 4]]).all()
    assert apart[1:4] == pytest.approx([0.4, 1.0, 1.6])


@given(st.integers(1, 300), st.integers(1, 400), st.integers(1, 400))
def test_rounds_halve_and_end_with_everything(candidates, facts, items):
    found = rounds(candidates, facts, items)
    assert found[0].candidates == candidates
    assert (found[-1].facts, found[-1].items) == (facts, items)
    assert found[-1].candidates == min(candidates, 8)
    for before, after in pairwise(found):
        assert 8 <= after.candidates <= max(8, before.candidates / 2 + 1)
        assert before.facts <= after.facts <= 2 * before.facts and before.items <= after.items
        assert before.facts >= min(16, facts)
    if facts >= 16 * 2 ** len(found):
        whole = sum(each.candidates * each.facts for each in found)
        assert whole <= 1.3 * 8 * facts * len(found) + candidates + facts


def test_a_race_costs_a_fraction_of_measuring_all():
    found = rounds(96, 800, 800)
    cost = sum(each.candidates * (each.facts + each.items) for each in found) / 1600
    assert [each.candidates for each in found] == [96, 48, 24, 12, 8]
    assert cost < 96 / 2.5


KNOWLEDGE = {"base": 0.95, "tuned": 0.6} | {f"alpha-{step}": 0.95 - 0.035 * step for step in range(10)}
TASK = {"base": 0.1, "tuned": 0.97} | {f"alpha-{step}": min(0.97, 0.25 + 0.12 * step) for step in range(10)}
# Within a bound of .03 the most generous is alpha-6.


def test_the_answer_stays_in_the_race():
    there = 0
    for seed in range(60):
        field = scores(np.random.default_rng(seed), KNOWLEDGE, TASK, facts=16, items=16)
        left = survivors(field, 0.03, 5, seed=seed)
        assert len(left) == 5 and "tuned" not in left and "base" not in left
        there += "alpha-6" in left
    assert there >= 52  # in a round of 16 facts and 16 items, where it stands out by half a fact


def test_with_many_items_the_chance_is_at_the_answer():
    field = scores(np.random.default_rng(1), KNOWLEDGE, TASK, facts=2000, items=2000)
    names = [name for name in field.names if name.startswith("alpha")]
    found = dict(zip(names, chances(field, names, 0.03), strict=True))
    assert found["alpha-6"] > 0.95 and sum(found.values()) == pytest.approx(1)


def test_equal_candidates_share_and_nobody_within_the_bound_means_least_loss():
    twins = {"tuned": 0.9, "a": 0.5, "b": 0.5}
    field = scores(np.random.default_rng(0), twins, {"tuned": 1.5, "a": 0.3, "b": 0.3})
    for values in (field.knowledge, field.task):
        values[:, 2] = values[:, 1]
    assert chances(field, ["a", "b"], 0.01).tolist() == pytest.approx([0.5, 0.5])
    field.task[:, 2] = 0
    assert chances(field, ["a", "b"], 0.01).tolist() == pytest.approx([1, 0])


def test_few_candidates_all_go_on_and_the_same_seed_says_the_same():
    field = scores(np.random.default_rng(0), KNOWLEDGE, TASK)
    assert survivors(field, 0.03, 10) == [name for name in field.names if name.startswith("alpha")]
    assert survivors(field, 0.03, 4, seed=2) == survivors(field, 0.03, 4, seed=2)


def measured(ids, right=True):
    kinds = ["knowledge" if name.startswith("f") else "task" for name in ids]
    return pl.DataFrame({"kind": kinds, "id": ids, "right": [right] * len(ids), "score": 1.0, "log_prob": -0.5})


def test_side_by_side_pairs_by_id_and_refuses_other_items():
    first = measured(["f1", "f2", "i1"]).with_columns(score=pl.Series([1.0, 0.0, 1.0]))
    field = side_by_side({"tuned": first, "a": first.reverse()})
    assert field.knowledge.tolist() == [[1, 1], [0, 0]] and field.task.tolist() == [[1, 1]] and field.binary
    with pytest.raises(ValueError, match="'a' was measured on other"):
        side_by_side({"tuned": first, "a": measured(["f1", "f3", "i1"])})
    with pytest.raises(ValueError, match="nothing was measured of task"):
        side_by_side({"tuned": measured(["f1"])})
    assert not side_by_side({"tuned": measured(["f1", "i1"], right=None)}).binary
