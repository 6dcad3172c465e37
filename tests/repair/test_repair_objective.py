"""Measurements: planted losses come out, subsets grow, candidates pair; and a real model gives the same in parts."""

import polars as pl
import pytest
from knowing import Knowing

import tiny
from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.generate.engine import Prompt
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.repair.knowledge import Knowledge
from knowshift.repair.objective import Objective
from knowshift.repair.split import PARTS, part_of, split
from knowshift.repair.task import Item

FACTS = [Fact(f"f{number}", f"Where is lake {number}?", (f"Land{number}",)) for number in range(120)]
ITEMS = [Item(f"i{number}", Prompt(f"turn {number}", key=""), (f"done {number}",), "task") for number in range(120)]
KNOWN = Knowledge(split(FACTS[5:], lambda fact: fact.question), tuple(FACTS[:5]), pl.DataFrame())


def knows(question):
    number = question.rpartition(" ")[2].removesuffix("?")
    return f" Land{number}\n" if "lake" in question else f"done {number}"


def tuned(question):
    """Has lost every third fact and every fourth item."""
    number = int(question.rpartition(" ")[2].removesuffix("?"))
    return "no" if number % (3 if "lake" in question else 4) == 0 else knows(question)


@pytest.fixture
def objective():
    return Objective(KNOWN, ITEMS, "task.jsonl", seed=3)


def test_planted_losses_are_measured(objective):
    for part in PARTS:
        whole, lost = (objective.measure(Knowing(model), part) for model in (knows, tuned))
        assert whole["right"].all() and whole["log_prob"].to_list() == [-1.0] * whole.height
        assert lost["id"].equals(whole["id"]) and lost["kind"].equals(whole["kind"])
        for kind, every in (("knowledge", 3), ("task", 4)):
            rows = lost.filter(pl.col("kind") == kind)
            assert rows["right"].to_list() == [int(name[1:]) % every != 0 for name in rows["id"]]
            assert rows["score"].to_list() == rows["right"].cast(pl.Float64).to_list()
        assert lost.height == len(objective.facts[part]) + len(objective.items[part])


def test_what_is_measured_first_is_a_sample_and_grows(objective):
    whole = objective.measure(Knowing(tuned), "search")
    first = objective.measure(Knowing(tuned), "search", facts=range(20), items=range(15))
    rest = objective.measure(Knowing(tuned), "search", facts=range(20, 999), items=range(15, 999))
    assert first["kind"].to_list() == ["knowledge"] * 20 + ["task"] * 15
    assert pl.concat([first, rest]).sort("kind", "id").equals(whole.sort("kind", "id"))
    assert not first["id"].is_in(rest["id"].implode()).any()
    only = objective.measure(Knowing(tuned), "search", facts=range(0), items=range(3))
    assert only["kind"].to_list() == ["task"] * 3
    assert objective.measure(Knowing(tuned), "search", facts=range(0), items=range(0)).is_empty()
    # A sample, not the file's beginning; another under another seed.
    assert first["id"].to_list()[:20] != [fact.id for fact in FACTS[5:] if part_of(fact.question) == "search"][:20]
    other = Objective(KNOWN, ITEMS, "task.jsonl", seed=4).measure(Knowing(tuned), "search", items=range(0))
    assert sorted(other["id"]) == sorted(fact.id for fact in objective.facts["search"])
    assert other["id"].to_list()[:20] != first["id"].to_list()[:20]


def test_parts_are_disjoint_and_the_examples_stay_out(objective):
    ids = [name for part in PARTS for name in objective.measure(Knowing(knows), part)["id"]]
    assert len(ids) == len(set(ids)) == 115 + 120
    assert not {shot.id for shot in objective.shots} & set(ids)


def test_every_model_is_asked_with_the_same_examples(objective):
    engine = Knowing(tuned)
    objective.measure(engine, "test", items=range(0))
    assert len({prompt.text.rpartition("Question: ")[0] for prompt in engine.prompts}) == 1
    assert all(shot.question in engine.prompts[0].text for shot in FACTS[:5])


def test_too_small_a_task_is_refused():
    with pytest.raises(InputError, match=r"task\.jsonl: 5 prompts are too few"):
        Objective(KNOWN, ITEMS[:5], "task.jsonl")


@pytest.mark.parametrize("metric", ["exact", "log-likelihood"])
def test_a_real_model_measured_in_two_parts_equals_the_whole(metric):
    engine = TransformersEngine(tiny.model(), tiny.tokenizer())
    shots = Knowledge(KNOWN.known, tuple(FACTS[:2]), pl.DataFrame())
    objective = Objective(shots, ITEMS, "task.jsonl", metric=metric, max_new_tokens=3)
    whole = objective.measure(engine, "validation")
    cut = [{"facts": range(7), "items": range(9)}, {"facts": range(7, 999), "items": range(9, 999)}]
    both = pl.concat([objective.measure(engine, "validation", **places) for places in cut])
    both, whole = both.sort("kind", "id"), whole.sort("kind", "id")
    assert both.drop("score", "log_prob").equals(whole.drop("score", "log_prob"))
    for column in ("score", "log_prob"):
        assert both[column].to_list() == pytest.approx(whole[column].to_list(), abs=1e-4)
    assert whole["log_prob"].n_unique() > 20 and (whole["log_prob"] < 0).all()
