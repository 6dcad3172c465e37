"""What becomes of facts between two models."""

import polars as pl
import pytest

from knowshift.errors import InputError
from knowshift.measure.statistics import headline_difference, mcnemar_exact
from knowshift.measure.transitions import compare, count, named, transitions


def answers(rows):
    """(id, domain, level, text, contains, strict) as a table of answers."""
    return pl.DataFrame(
        rows,
        schema={
            "id": pl.String,
            "domain": pl.String,
            "level": pl.Int8,
            "text": pl.String,
            "contains": pl.Boolean,
            "strict": pl.Boolean,
        },
        orient="row",
    ).with_columns(topic=pl.lit("capital"), subject=pl.col("id"), question=pl.col("id"), answers=pl.lit(["x"]))


BEFORE = answers(
    [
        ("a", "id", 4, "yes", True, True),
        ("b", "id", 4, "yes", True, False),
        ("c", "id", 0, "no", False, False),
        ("d", "ood", 0, "no", False, False),
    ]
)
AFTER = answers(
    [
        ("d", "ood", 0, "still no", False, False),
        ("c", "id", 0, "now yes", True, False),
        ("b", "id", 4, "now no", False, True),
        ("a", "id", 4, "still yes", True, True),
    ]
)


def test_truth_table():
    table = transitions(BEFORE, AFTER)
    assert dict(zip(table["id"], table["change"], strict=True)) == {
        "a": "kept",
        "b": "lost",
        "c": "gained",
        "d": "never",
    }
    assert table["id"].to_list() == ["a", "b", "c", "d"]
    assert table.filter(pl.col("id") == "b").select("before", "after").row(0) == ("yes", "now no")
    assert table.columns == [
        "id", "topic", "subject", "question", "answers", "domain", "level", "before", "after", "change",
    ]  # fmt: skip


def test_the_matcher_is_a_choice():
    table = transitions(BEFORE, AFTER, match="strict")
    assert table["change"].to_list() == ["kept", "gained", "never", "never"]


def test_levels_come_from_either_side():
    bare = AFTER.with_columns(level=pl.lit(None, pl.Int8))
    assert transitions(BEFORE, bare)["level"].to_list() == [4, 4, 0, 0]
    assert transitions(bare, BEFORE)["level"].to_list() == [0, 0, 4, 4]


def test_counts_by_domain_level_and_topic():
    counted = count(transitions(BEFORE, AFTER))
    total = {"kept": 1, "lost": 1, "gained": 1, "never": 0}
    assert {key: counted["id"][key] for key in total} == total
    assert counted["id"]["mcnemar_p"] == mcnemar_exact(1, 1) == 1.0
    assert counted["id"]["levels"]["4"] == {"kept": 1, "lost": 1, "gained": 0, "never": 0}
    assert counted["id"]["topics"]["capital"] == total
    assert counted["ood"]["never"] == 1


def test_different_facts_are_refused_by_name():
    with pytest.raises(InputError, match="1 stand only in the first, such as 'd'"):
        transitions(BEFORE, AFTER.filter(pl.col("id") != "d"))
    with pytest.raises(InputError, match="stand only in the second, such as 'a'"):
        transitions(BEFORE.filter(pl.col("id") != "a"), AFTER)
    with pytest.raises(InputError, match="holds the fact 'a' more than once"):
        transitions(pl.concat([BEFORE, BEFORE.head(1)]), AFTER)


def test_names_of_what_was_lost():
    assert named(transitions(BEFORE, AFTER), "lost", 5) == ["b x; now: now no"]
    assert named(transitions(BEFORE, AFTER), "lost", 0) == []


def test_figures_between_two_models():
    figures = compare(BEFORE, AFTER, seed=3, resamples=200)
    assert figures["facts"] == 4
    assert figures["contains"]["domains"] == count(transitions(BEFORE, AFTER))
    assert figures["strict"]["domains"] == count(transitions(BEFORE, AFTER, match="strict"))
    difference = figures["contains"]["difference"]
    assert set(difference) == {"both", "id", "ood"}
    assert difference["id"]["micro"]["value"] == 0
    assert difference["id"]["mean_over_levels"]["value"] == pytest.approx((1.0 - 0.5) / 2)
    own = headline_difference(BEFORE, AFTER, seed=3, resamples=200)
    assert difference["both"]["mean_over_levels"] == own.to_json()
    assert figures["strict"]["difference"]["id"]["micro"]["value"] == pytest.approx(1 / 3)
    assert "gold_log_prob" not in figures
    graded = [table.with_columns(gold_log_prob=pl.lit(value)) for table, value in ((BEFORE, -2.0), (AFTER, -3.5))]
    assert compare(*graded, resamples=200)["gold_log_prob"]["ood"]["value"] == -1.5
