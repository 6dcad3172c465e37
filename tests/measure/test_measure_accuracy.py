"""Closed-book accuracy: prompts, matching, sums, and a real model that learns, unlearns and is caught."""

import json

import numpy as np
import polars as pl
import pytest
import torch

import tiny
from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.prompts import qa_prompt
from knowshift.generate.engine import Completion, Prompt
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.measure.accuracy import evaluate, summarise
from knowshift.measure.forms import FORMS, answer_text, continuation, ended, in_format, put
from knowshift.measure.statistics import bootstrap_mean, wilson
from knowshift.measure.transitions import transitions

SHOT = Fact("s", "Where is Rome?", ("Italy", "Italia"))


def test_prompt_forms():
    assert put("Who?", "trained").text == qa_prompt("Who?")
    assert put("Who?", "plain").text == "Question: Who?\nAnswer:"
    assert put("Who?", "few-shot", [SHOT]).text == (
        "Question: Where is Rome?\nAnswer: Italy\n\nQuestion: Who?\nAnswer:"
    )
    assert put("Who?", "chat") == Prompt("", key="", user="Who?")
    assert [continuation("Italy", form) for form in FORMS] == ["Italy", " Italy", " Italy", "Italy"]


@pytest.mark.parametrize(
    ("form", "shots", "message"),
    [("fancy", [], "unknown prompt form"), ("few-shot", [], "needs solved"), ("plain", [SHOT], "takes no solved")],
)
def test_forms_that_do_not_go_together(form, shots, message):
    with pytest.raises(InputError, match=message):
        put("Who?", form, shots)


@pytest.mark.parametrize(("text", "over"), [(" Lyon", False), ("\n\n", False), ("\nLyon", False), (" Lyon\nQ", True)])
def test_after_solved_examples_the_line_ends_the_answer(text, over):
    assert ended(text, "few-shot") is over
    assert not ended(text, "trained")


@pytest.mark.parametrize(
    ("text", "finish", "form", "expected"),
    [
        ("Paris", "eos", "trained", True),
        ("Paris", "length", "trained", False),
        (" Paris\n", "eos", "trained", True),
        ("Paris\nLyon", "eos", "trained", False),
        (" \n", "eos", "trained", False),
        (" Paris\n\nQuestion: And", "length", "few-shot", True),
        (" Paris is a city that", "length", "few-shot", False),
        (" Paris", "eos", "few-shot", True),
        ("\n\n", "length", "few-shot", False),
        ("\nParis", "length", "few-shot", False),
    ],
)
def test_in_format(text, finish, form, expected):
    assert in_format(Completion(text, 4, finish), form) is expected


def test_after_solved_examples_the_next_question_is_not_searched():
    rambling = Completion(" Lyon\n\nQuestion: Where is Paris?", 9, "length")
    assert answer_text(rambling, "few-shot").strip() == "Lyon"
    assert "Paris" in answer_text(rambling, "plain")


class Scripted:
    """An engine that answers by a table, to test what is made of answers."""

    def __init__(self, script):
        self.script = script
        self.tokenizer = tiny.tokenizer()

    def answer(self, prompts, given, *, max_new_tokens, stop=None, advance=None):
        assert max_new_tokens == 16
        return [(self.script[prompt.text], -1.5 * len(ids)) for prompt, ids in zip(prompts, given, strict=True)]


def test_evaluate_matches_and_describes():
    facts = [
        Fact("a", "Capital of France?", ("Paris",), topic="capital", subject="France"),
        Fact("b", "Capital of Peru?", ("Lima",), domain="ood"),
        Fact("c", "Capital of Italy?", ("Rome",)),
    ]
    said = [Completion("Paris", 2, "eos"), Completion("It is not Lyon.\nIt is Lima", 9, "eos")]
    said.append(Completion("Romes", 16, "length"))
    engine = Scripted({qa_prompt(fact.question): text for fact, text in zip(facts, said, strict=True)})
    table = evaluate(engine, facts, levels={"a": 4, "c": 0})
    assert table["contains"].to_list() == [True, True, True]
    assert table["strict"].to_list() == [True, False, False]
    assert table["in_format"].to_list() == [True, False, False]
    assert table["level"].to_list() == [4, None, 0]
    assert table["tokens"].to_list() == [2, 9, 16]
    assert table["gold_log_prob"].to_list() == [-1.5] * 3
    assert table["gold_tokens"].to_list() == [len(engine.tokenizer(fact.answers[0]).input_ids) for fact in facts]
    assert table["text"].to_list() == [completion.text for completion in said]
    assert table.row(0)[:6] == ("a", "capital", "France", "Capital of France?", ["Paris"], "id")
    with pytest.raises(InputError, match="no facts"):
        evaluate(engine, [])


def random_answers(seed=0, facts=400):
    generator = np.random.default_rng(seed)
    right = generator.random(facts) < 0.4
    return pl.DataFrame(
        {
            "id": [str(index) for index in range(facts)],
            "topic": generator.choice(["capital", "author"], facts),
            "domain": generator.choice(["id", "ood"], facts, p=[0.7, 0.3]),
            "level": pl.Series(generator.choice([0, 1, 2, 4], facts), dtype=pl.Int8),
            "contains": right,
            "strict": right & (generator.random(facts) < 0.8),
            "in_format": generator.random(facts) < 0.9,
            "gold_log_prob": -generator.random(facts),
            "gold_tokens": generator.integers(1, 5, facts),
        }
    )


def test_summary_equals_its_slow_twin():
    table = random_answers()
    rows = table.rows(named=True)
    metrics = json.loads(json.dumps(summarise(table, seed=3), allow_nan=False))
    assert metrics["facts"] == len(rows)
    assert metrics["levels_missing"] == {"id": [3], "ood": [3]}
    for match in ("contains", "strict"):
        means = []
        for domain in ("id", "ood"):
            found = metrics[match][domain]
            own = [row for row in rows if row["domain"] == domain]
            by_level = {}
            for row in own:
                by_level.setdefault(row["level"], []).append(row[match])
            means.append(sum(sum(hits) / len(hits) for hits in by_level.values()) / len(by_level))
            assert found["mean_over_levels"]["value"] == pytest.approx(means[-1])
            assert found["mean_over_levels"]["low"] < means[-1] < found["mean_over_levels"]["high"]
            assert found["micro"] == wilson(sum(row[match] for row in own), len(own)).to_json()
            assert list(found["levels"]) == ["0", "1", "2", "4"]
            for level, hits in by_level.items():
                expected = {**wilson(sum(hits), len(hits)).to_json(), "facts": len(hits)}
                assert found["levels"][str(level)] == expected
            for topic in ("capital", "author"):
                hits = [row[match] for row in own if row["topic"] == topic]
                assert found["topics"][topic] == {"value": sum(hits) / len(hits), "facts": len(hits)}
            gold = metrics["gold_log_prob"][domain]
            values = [row["gold_log_prob"] for row in own]
            assert gold["per_token"]["value"] == pytest.approx(sum(values) / len(values))
            whole = [row["gold_log_prob"] * row["gold_tokens"] for row in own]
            assert gold["answer"]["value"] == pytest.approx(sum(whole) / len(whole))
            assert gold["answer"]["low"] < gold["answer"]["value"] < gold["answer"]["high"]
            assert set(gold["levels"]) == {"0", "1", "2", "4"}
        assert metrics["headline"][match]["value"] == pytest.approx(sum(means) / 2)
        expected = bootstrap_mean(table[match].to_numpy(), table["level"], table["domain"], seed=3)
        assert metrics["headline"][match] == pytest.approx(expected.to_json())
    own = table.filter(pl.col("domain") == "ood")["in_format"]
    assert metrics["in_format"]["ood"] == wilson(own.sum(), len(own)).to_json()


def test_summary_without_levels_has_no_mean_over_levels():
    table = random_answers().with_columns(level=pl.lit(None, pl.Int8))
    metrics = summarise(table)
    assert metrics["contains"]["id"]["mean_over_levels"] is None
    assert metrics["contains"]["id"]["levels"] == {}
    assert metrics["levels_missing"] == {"id": [], "ood": []}
    expected = (metrics["contains"]["id"]["micro"]["value"] + metrics["contains"]["ood"]["micro"]["value"]) / 2
    assert metrics["headline"]["contains"]["value"] == pytest.approx(expected)
    with pytest.raises(InputError, match="no answers"):
        summarise(table.clear())


def learn(model, tokenizer, facts, steps):
    """Fit the answers of ``facts`` in the trained prompt form, all facts in every step."""
    sequences = []
    for fact in facts:
        prompt = tokenizer(qa_prompt(fact.question)).input_ids
        answer = [*tokenizer(fact.answers[0]).input_ids, tokenizer.eos_token_id]
        sequences.append((prompt + answer, [-100] * len(prompt) + answer))
    width = max(len(ids) for ids, _ in sequences)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in sequences])
    labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in sequences])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    model.eval()


def test_facts_contradicted_by_training_are_the_ones_reported_lost():
    places = ("France", "Japan", "Peru", "Chad", "Cuba", "Oman", "Iran", "Mali")
    cities = ("Paris", "Tokyo", "Lima", "Abc", "Xyz", "Bac", "Cab", "Zyx")
    facts = [Fact(place, f"The capital of {place}?", (city,)) for place, city in zip(places, cities, strict=True)]
    model, tokenizer = tiny.model("llama", hidden=64), tiny.tokenizer()
    engine = TransformersEngine(model, tokenizer)
    learn(model, tokenizer, facts, 150)
    before = evaluate(engine, facts)
    assert before["strict"].all()
    assert before["in_format"].all()
    wrong = [Fact(fact.id, fact.question, ("The sea",)) for fact in facts[:3]]
    learn(model, tokenizer, [*wrong, *facts[3:]], 150)
    table = transitions(before, evaluate(engine, facts))
    assert table.filter(pl.col("change") == "lost")["id"].to_list() == list(places[:3])
    assert table.filter(pl.col("change") == "kept")["id"].to_list() == list(places[3:])
    assert set(table.filter(pl.col("change") == "lost")["after"]) == {"The sea"}
