"""The embedded model on the embedded facts: what everybody knows stands above what hardly anybody does."""

from pathlib import Path

import polars as pl
import pytest

from knowshift import steps
from knowshift.errors import InputError
from knowshift.facts.fact import write_jsonl
from knowshift.facts.sources import read_facts
from knowshift.mastery.score import MasteryOptions
from knowshift.models import resolve

FAMOUS = ("France", "Italy", "Germany", "Japan", "China", "Spain", "Egypt", "Greece")
OBSCURE = ("Tuvalu", "Nauru", "Comoros", "Kiribati", "Vanuatu", "Bhutan", "Lesotho", "Burkina Faso")


def test_famous_capitals_above_obscure_ones(tmp_path: Path) -> None:
    try:
        resolve("smollm2")
    except InputError as error:
        pytest.skip(f"the embedded model cannot be had here: {error}")
    facts = [fact for fact in read_facts("world") if fact.topic == "capital_of_country"]
    asked = [fact for fact in facts if fact.subject.removeprefix("the ") in FAMOUS + OBSCURE]
    write_jsonl(tmp_path / "facts.jsonl", (fact.to_json() for fact in asked))
    options = MasteryOptions(templates=6, samples=4, max_new_tokens=6)
    table = steps.mastery("smollm2", str(tmp_path / "facts.jsonl"), tmp_path / "out", options)
    known = table.with_columns(famous=pl.col("subject").is_in(FAMOUS)).group_by("famous").agg(pl.col("mastery").mean())
    means = dict(known.iter_rows())
    assert min(table.group_by(pl.col("subject").is_in(FAMOUS)).len()["len"]) >= 4
    assert means[True] > means[False] + 0.2
