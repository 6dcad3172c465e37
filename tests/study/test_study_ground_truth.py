"""Ground truth: the smoke plan on a model whose knowledge is known, trained and damaged in known ways, finds both.

The model was shown facts often, seldom or never. Some of what it is then trained on contradicts what it knows. And
in place of two trained models stand two that were made by hand: the base with an update that changes nothing, and the
same with a sparse update that spoils it.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

import exposed
from commands import run
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.facts.prompts import qa_prompt
from knowshift.facts.templates import templates_for
from knowshift.files import write_json
from knowshift.study.claims.repair import beyond_tuning
from knowshift.study.measures import read as read_measures
from knowshift.study.planfile import preset
from knowshift.study.run import status

UNKNOWN, HALF = 0, 2  # the smoke plan's levels
SEEDS = [0, 1, 2]


def invented_facts() -> dict[str, list[Fact]]:
    """Capitals by what becomes of them; each kind of fact carries its name in its id."""
    words = exposed.names()

    def made(kind: str, count: int, split: str, domain: str = "id", like: list[Fact] | None = None) -> list[Fact]:
        subjects = [fact.subject or "" for fact in like] if like else [next(words) for _ in range(count)]
        return [
            Fact(
                id=f"{kind}:{split}:{domain}:{number}",
                question=f"What is the capital of {subject}?",
                answers=(next(words),),
                topic="capital_of_country",
                subject=subject,
                split=split,
                domain=domain,
            )
            for number, subject in enumerate(subjects)
        ]

    contradicted = made("contradicted", 8, "test")
    spared = made("spared", 8, "test") + made("spared", 16, "test", "ood")
    watched = made("spared", 12, "validation") + made("spared", 12, "validation", "ood")
    return {
        "often": contradicted + spared + watched,
        "seldom": made("seldom", 48, "train"),
        "never": made("contrary", 8, "train", like=contradicted) + made("never", 8, "train"),
    }


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The smoke plan about a model that was shown three phrasings and the trained form of a fact, one phrasing, or
    nothing: with three seeds, and with as many steps as learning by heart takes.

    The base is asked in the trained form, which it knows; solved examples it never saw."""
    folder = tmp_path_factory.mktemp("truth")
    facts = invented_facts()
    everything = [fact for group in facts.values() for fact in group]
    asked = [text for fact in everything for text in (*templates_for(fact), qa_prompt(fact.question))]
    tokenizer = exposed.tokenizer_for(asked)
    shown = [f"{text} {fact.answers[0]}." for fact in facts["often"] for text in templates_for(fact)[:3]]
    shown += [qa_prompt(fact.question) + fact.answers[0] for fact in facts["often"]]
    shown += [f"{templates_for(fact)[0]} {fact.answers[0]}." for fact in facts["seldom"]]
    exposed.trained_model(shown, tokenizer).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_jsonl(folder / "facts.jsonl", (fact.to_json() for fact in everything))
    smoke = preset("smoke").model_dump(mode="json")
    return smoke | {
        "models": [str(folder / "model")],
        "facts": str(folder / "facts.jsonl"),
        "seeds": SEEDS,
        "sizes": [48],
        "train": {"learning_rate": 3e-4, "epochs": 30},
        "eval": smoke["eval"] | {"base_forms": ["trained"]},
        "drift": {"modes": []},
        "keep_models": True,
    }


@pytest.fixture(scope="module")
def trained(plan: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, without its sweep."""
    return studied(plan | {"sweep": {"enabled": False}}, tmp_path_factory.mktemp("trained") / "out")


@pytest.fixture(scope="module")
def planted(plan: dict[str, Any], trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study and its sweep, where models made by hand have taken the place of those that were trained.

    A train cell without its mark takes the model that it finds for its own.
    """
    out = tmp_path_factory.mktemp("planted") / "out"
    shutil.copytree(trained, out)
    for level, seed, folder in status(out).filter(kind="train").select("level", "seed", "folder").iter_rows():
        model = AutoModelForCausalLM.from_pretrained(plan["models"][0])
        update(model, seed, harmful=level == HALF)
        model.save_pretrained(out / folder / "model")
        (out / folder / "done.json").unlink()
    return studied(plan, out)


def update(model: torch.nn.Module, seed: int, *, harmful: bool) -> None:
    """Change every weight of the blocks by a ten-thousandth; harmful, also one in a hundred by ten of their spreads."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if ".layers." not in name or weights.dim() < 2:
                continue
            spread = weights.std()
            weights.mul_(1 + 1e-4 * torch.randn(weights.shape, generator=generator))
            hit = torch.rand(weights.shape, generator=generator) < 0.01
            signs = torch.randn(weights.shape, generator=generator).sign()
            if harmful:
                weights.add_(10 * spread * signs * hit)


def studied(plan: dict[str, Any], out: Path) -> Path:
    """Run the study; returns its folder."""
    file = out.parent / "plan.yaml"
    write_json(file, plan)  # JSON is YAML
    assert run("study", file, "--out", out) == 0
    return out


def answers(out: Path, kind: str, **labels: Any) -> pl.DataFrame:
    """The answers of all cells of a kind, with their seeds and the kind of every fact."""
    cells = status(out).filter(kind=kind, **labels).select("seed", "folder").iter_rows()
    read = [pl.read_parquet(out / folder / "answers.parquet").with_columns(seed=seed) for seed, folder in cells]
    return pl.concat(read).with_columns(what=pl.col("id").str.split(":").list.first())


def right(table: pl.DataFrame, **labels: Any) -> float:
    """The share of answers that are right."""
    return float(table.filter(**labels)["contains"].mean())  # type: ignore[arg-type]


def verdict(out: Path, level: int) -> str:
    """What the models of one level, alone, say of restoration."""
    measures = read_measures(out)
    alone = replace(measures, index=measures.index.filter(level=level))
    (model,) = measures.models
    return beyond_tuning(alone, model).verdict


def test_levels_are_ordered_as_facts_were_shown(trained: Path) -> None:
    found = [pl.read_parquet(file) for file in trained.glob("cells/mastery/*/mastery.parquet")]
    mastery = pl.concat(found).group_by(pl.col("id").str.split(":").list.first()).agg(pl.col("mastery").mean())
    share = dict(mastery.iter_rows())
    assert share["never"] == share["contrary"] == 0
    assert 0.2 < share["seldom"] < min(share["contradicted"], share["spared"]) - 0.1


def test_contradicted_facts_are_lost_and_only_by_what_contradicts_them(trained: Path) -> None:
    base = answers(trained, "eval", role="base", split="test", form="trained")
    unknown, half = (answers(trained, "eval", role="tuned", split="test", level=level) for level in (UNKNOWN, HALF))
    assert right(base, what="contradicted") == 1
    assert right(unknown, what="contradicted") < 0.3
    assert right(unknown, what="spared") > right(unknown, what="contradicted") + 0.2
    assert right(half, what="contradicted") > 0.6
    lost = pl.read_parquet(trained / "tables/transitions.parquet").filter(change="lost", domain="id")
    by_level = dict(lost.select("level", "value").iter_rows())
    assert by_level[UNKNOWN] > by_level[HALF] + 0.2


def test_a_planted_sparse_update_is_found_and_repaired(planted: Path) -> None:
    confirmed = answers(planted, "confirm", level=HALF)
    spoilt = right(confirmed, fraction=0.0)
    assert spoilt < 0.5
    assert right(confirmed, method="relative", fraction=0.05) > 0.95
    for control in ("random", "base-magnitude"):
        assert right(confirmed, method=control, fraction=0.05) < spoilt + 0.2
    assert verdict(planted, HALF) == "supported"


def test_nothing_is_found_where_nothing_was_planted(planted: Path) -> None:
    confirmed = answers(planted, "confirm", level=UNKNOWN)
    assert right(confirmed, fraction=0.0) > 0.95
    assert verdict(planted, UNKNOWN) != "supported"
