"""Knowledge lost, told apart from a form lost or never had."""

import polars as pl
import pytest

from knowshift.measure.against import against_base, base_forms


def answers(right, formed=None):
    """Answers to facts a, b, ... of one domain: whether each is right, and whether it has the form of an answer."""
    ids = [chr(ord("a") + index) for index in range(len(right))]
    columns = {
        "id": ids,
        "topic": ["t"] * len(ids),
        "domain": ["id"] * len(ids),
        "level": pl.Series([2] * len(ids), dtype=pl.Int8),
        "text": ids,
        "contains": right,
        "strict": right,
        "in_format": formed or [True] * len(ids),
    }
    return pl.DataFrame(columns)


SHOWN = answers([True, True, True, True, False])
TRAINED = answers([False, False, True, False, False])
TUNED = answers([True, False, False, True, True], [True, True, False, True, True])


def test_forms_of_the_base():
    assert base_forms("trained") == ("trained", "plain", "few-shot")
    assert base_forms("few-shot") == ("few-shot", "plain")


def test_what_was_known_is_what_the_base_says_after_solved_examples():
    table, figures = against_base(TUNED, {"trained": TRAINED, "few-shot": SHOWN}, "trained", seed=1)
    knowledge = figures["knowledge"]["id"]
    assert knowledge.pop("lost_share")["value"] == 0.5
    assert knowledge == {
        "facts": 5,
        "known": 4,
        "kept": 2,
        "lost": 2,
        "lost_in_format": 1,
        "lost_out_of_format": 1,
        "base_out_of_form": 3,
    }
    changes = {key: part["change"].to_list() for (key,), part in table.partition_by("form", as_dict=True).items()}
    assert changes == {
        "trained": ["gained", "never", "lost", "gained", "gained"],
        "few-shot": ["kept", "lost", "lost", "kept", "gained"],
    }
    assert figures["forms"]["trained"]["contains"]["difference"]["both"]["micro"]["value"] == pytest.approx(0.4)


def test_without_solved_examples_nothing_is_said_of_knowledge():
    _, figures = against_base(TUNED, {"trained": TRAINED}, "trained")
    assert set(figures) == {"forms"}
    _, figures = against_base(TUNED, {"few-shot": SHOWN}, "chat")
    assert figures["knowledge"]["id"]["base_out_of_form"] is None
    nothing = answers([False] * 5)
    knowledge = against_base(TUNED, {"few-shot": nothing}, "trained")[1]["knowledge"]["id"]
    assert (knowledge["known"], knowledge["lost_share"]) == (0, None)
