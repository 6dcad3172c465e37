"""Ground truth: a model trained here on invented facts shown never, now and then, and often, then scored."""

import polars as pl
import pytest

import exposed
from knowshift.cli import main
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.facts.templates import templates_for

SHOWN = {"never": 0, "seldom": 1, "often": 21}  # sentences of each fact in one pass over the data
EACH = 8


def invented_facts() -> list[Fact]:
    """Countries and capitals, in groups as often as they are shown."""
    words = exposed.names()
    return [
        Fact(
            id=f"{group}:{number}",
            question=f"What is the capital of {(subject := next(words))}?",
            answers=(next(words),),
            topic="capital_of_country",
            subject=subject,
        )
        for group in SHOWN
        for number in range(EACH)
    ]


def group_of(fact: Fact) -> str:
    return fact.id.partition(":")[0]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    folder = tmp_path_factory.mktemp("truth")
    facts = invented_facts()
    tokenizer = exposed.tokenizer_for([text for fact in facts for text in templates_for(fact)])
    sentences = [
        f"{templates_for(fact)[index]} {fact.answers[0]}." for fact in facts for index in range(SHOWN[group_of(fact)])
    ]
    exposed.trained_model(sentences, tokenizer).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_jsonl(folder / "facts.jsonl", (fact.to_json() for fact in facts))
    command = ["mastery", str(folder / "model"), "--facts", str(folder / "facts.jsonl"), "--out", str(folder / "out")]
    assert main([*command, "--max-new-tokens", "8"]) == 0
    scored = pl.read_parquet(folder / "out" / "mastery.parquet")
    return scored.with_columns(group=pl.col("id").str.split(":").list.first())


def test_mastery_orders_what_was_shown_never_seldom_and_often(table: pl.DataFrame) -> None:
    assert table["trials"].to_list() == [210] * (3 * EACH)
    shares = {name: table.filter(group=name)["mastery"] for name in SHOWN}
    assert shares["never"].max() == 0
    assert shares["seldom"].mean() > 0.03
    assert shares["often"].min() > max(0.75, shares["seldom"].max())


def test_levels(table: pl.DataFrame) -> None:
    assert set(table.filter(group="never")["level"]) == {0}
    assert set(table.filter(group="often")["level"]) == {4}
    assert table.filter(group="seldom")["level"].is_between(1, 3).mean() >= 0.75


def test_strict_hits_agree(table: pl.DataFrame) -> None:
    """The model says nothing but answers, so an answer it gives is whole words on the first line."""
    assert (table["strict_hits"] <= table["hits"]).all()
    assert table["strict_hits"].sum() >= 0.98 * table["hits"].sum()


def test_slick_classes(table: pl.DataFrame) -> None:
    classes = {name: set(table.filter(group=name)["slick"]) for name in SHOWN}
    assert classes["never"] == {"Unknown"}
    assert classes["often"] <= {"HighlyKnown", "MaybeKnown"}
    assert "HighlyKnown" in classes["often"]
    assert classes["seldom"] <= {"MaybeKnown", "WeaklyKnown", "Unknown"}
    assert (table.filter(slick="HighlyKnown")["greedy_hits"] == 21).all()
