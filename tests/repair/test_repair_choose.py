"""The choice and its proof on planted scores: what is there is found, what is not there is not claimed."""

import json

import numpy as np
import pytest
from planted import scores

from knowshift.repair.choose import choose, confirm, standard_error
from knowshift.repair.scores import Scores

ALPHAS = [f"interpolate-{step}" for step in range(6)]


def settled(seed, knowledge, task, size=80, bound=None):
    """Choose on one draw, confirm on another, as the command does with validation and test."""
    generator = np.random.default_rng(seed)
    validation = scores(generator, knowledge, task, size, size)
    if bound is None:
        bound = standard_error(validation.task[:, validation.place("tuned")], binary=True)
    chosen, rival = choose(validation, bound), choose(validation, bound, only="interpolate")
    test = scores(generator, knowledge, task, size, size)
    return confirm(test, chosen, bound, rival=rival, seed=seed)


def everybody(value, base):
    return {"base": base, **dict.fromkeys(["tuned", *ALPHAS, "coefficients"], value)}


@pytest.mark.parametrize("size", [12, 40, 150])
def test_where_nothing_was_lost_nothing_is_claimed(size):
    for level in (0.7, 0.97):
        found = [settled(seed, everybody(level, level), everybody(0.9, 0.2), size) for seed in range(150)]
        lost = sum(verdict.outcome != "nothing-lost" for verdict in found)
        assert lost <= 0.05 * len(found)
        assert sum(verdict.outcome == "repaired" for verdict in found) <= 0.05 * len(found)


@pytest.mark.parametrize("size", [12, 40, 150])
def test_where_nothing_comes_back_nothing_is_claimed(size):
    found = [settled(seed, everybody(0.6, 0.95), everybody(0.9, 0.2), size) for seed in range(150)]
    assert sum(verdict.outcome in ("repaired", "task-drop") for verdict in found) <= 0.05 * len(found)
    if size == 150:
        assert sum(verdict.outcome == "nothing-returned" for verdict in found) >= 0.9 * len(found)


def test_planted_harm_that_is_undone_is_found():
    knowledge = everybody(0.7, 0.95) | {"coefficients": 0.94, "interpolate-3": 0.8}
    found = [settled(seed, knowledge, everybody(0.9, 0.2), bound=0.1) for seed in range(60)]
    assert sum(verdict.outcome == "repaired" for verdict in found) >= 55
    assert all(verdict.chosen == "coefficients" for verdict in found)
    shares = [verdict.returned_share for verdict in found]
    assert np.mean([share.value for share in shares]) > 0.85
    beats = [verdict.over_rival.up for verdict in found if verdict.over_rival]
    assert len(beats) >= 55 and np.mean(beats) > 0.6


def test_a_repair_that_costs_the_task_is_not_recommended():
    knowledge = everybody(0.6, 0.95) | {"coefficients": 0.95}
    task = everybody(0.97, 0.2) | {"coefficients": 0.5}
    test = scores(np.random.default_rng(0), knowledge, task, 200, 200)
    verdict = confirm(test, "coefficients", 0.02)
    assert verdict.outcome == "task-drop" and "not recommended" in verdict.sentence
    assert confirm(test, "coefficients", 0.9).outcome == "repaired"
    assert choose(test, 0.02) != "coefficients" and choose(test, 0.9) == "coefficients"


def table(knowledge, task, log_prob=None):
    names = tuple(knowledge)
    columns = [np.array([each[name] for name in names], float).T for each in (knowledge, task)]
    log_probs = columns[0] if log_prob is None else np.array([log_prob[name] for name in names], float).T
    return Scores(names, *columns, log_probs, columns[1], binary=True)


def test_the_choice_by_hand():
    knowledge = {"base": [1] * 4, "tuned": [1, 0, 0, 0], "a": [1, 1, 1, 1], "b": [1, 1, 1, 0], "c": [0, 1, 1, 1]}
    task = {"base": [0] * 4, "tuned": [1, 1, 1, 1], "a": [1, 0, 0, 0], "b": [1, 1, 1, 0], "c": [1, 1, 1, 1]}
    field = table(knowledge, task)
    assert choose(field, 0.0) == choose(field, 0.25) == "c"  # b knows as much with less of the task
    assert choose(field, 0.75) == "a"
    assert choose(field, 0.0, only="b") == "tuned"
    assert choose(field, 0.25, only="b") == "b"
    equal = table({**knowledge, "c": knowledge["b"]}, {**task, "c": task["b"]})
    assert choose(equal, 0.25) == "b"
    sure = {name: [0.0] * 4 for name in knowledge} | {"c": [1.0] * 4}
    assert choose(table({**knowledge, "c": knowledge["b"]}, {**task, "c": task["b"]}, sure), 0.25) == "c"


def test_doing_nothing_is_a_choice():
    flat = table({"base": [1, 1], "tuned": [1, 0], "a": [0, 1]}, {"base": [0, 0], "tuned": [1, 1], "a": [1, 1]})
    assert choose(flat, 1.0) == "tuned"
    lost = everybody(0.6, 0.95)
    test = scores(np.random.default_rng(0), lost, everybody(0.9, 0.2), 200, 200)
    verdict = confirm(test, "tuned", 0.02, rival="tuned")
    assert verdict.outcome == "nothing-returned" and verdict.rival is None and verdict.returned == 0


def test_the_sentence_and_its_numbers():
    one, none = [1.0] * 30, [0.0] * 30
    knowledge = {
        "base": one + one + one[:20],
        "tuned": one + none + one[:20],
        "interpolate-1": one + none[:20] + one[:10] + one[:20],
        "x": one + one[:27] + none[:3] + none[:2] + one[:18],
    }
    verdict = confirm(table(knowledge, dict.fromkeys(knowledge, one)), "x", 0.02, rival="interpolate-1")
    assert (verdict.facts, verdict.items, verdict.lost, verdict.returned) == (80, 30, 30, 27)
    assert (verdict.repair.gained, verdict.repair.lost, verdict.since_base.lost) == (27, 2, 30)
    assert verdict.repair.change.value == pytest.approx(25 / 80)
    assert verdict.over_rival.gained == 20 and verdict.over_rival.lost == 5 and verdict.over_rival.up
    assert verdict.sentence.startswith(
        "The repair returned 27 of 30 lost facts (74 to 97 %) at a task change of +0.000 ("
    )
    assert "; 2 others were lost. It answers 20 facts that the best interpolation does not, and 5" in verdict.sentence
    again = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert again["outcome"] == "repaired" and again["returned_share"]["value"] == 0.9 and again["sentence"]
    same = confirm(table(knowledge, dict.fromkeys(knowledge, one)), "interpolate-1", 0.02, rival="interpolate-1")
    assert same.rival is None and same.outcome == "repaired"
    near = {**knowledge, "interpolate-1": [*knowledge["x"][:-1], 0.0]}
    close = confirm(table(near, dict.fromkeys(near, one)), "x", 0.02, rival="interpolate-1")
    assert not close.over_rival.up and "No repair beats interpolation" in close.sentence


def test_one_standard_error():
    assert standard_error(np.ones(98), binary=True) == pytest.approx(np.sqrt(0.99 * 0.01 / 100))
    hits = (np.arange(400) < 100).astype(float)
    assert standard_error(hits, binary=True) == pytest.approx(np.sqrt(0.25 * 0.75 / 400), rel=0.01)
    values = np.random.default_rng(0).normal(-2, 3, 50)
    assert standard_error(values, binary=False) == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    assert standard_error(values[:1], binary=False) == 0
