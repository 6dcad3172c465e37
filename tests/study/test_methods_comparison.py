"""The comparison of training methods: rule and statistics on made-up tables, and one small run, killed on the way."""

# ruff: noqa: E402  # benchmarks are no package

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_study_demo import facts_file

import tiny
from knowshift import steps
from knowshift.errors import InputError
from knowshift.facts.fact import write_jsonl
from knowshift.facts.sources import read_facts
from knowshift.files import read_json
from knowshift.measure.pairs import read_answers
from knowshift.report.words import Interval

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import methods
import methods_page
from methods_crossed import crossed_mean
from methods_figures import by_seed, differences, means, verdict
from methods_plan import read
from methods_rule import choose, mark


def points(*rows: tuple[str, float, float, int]) -> pl.DataFrame:
    names = ("name", "learning_rate", "id_accuracy", "ood_kept")
    table = pl.DataFrame(rows, schema=names, orient="row")
    return table.with_columns(setting=pl.col("learning_rate").cast(pl.String), id_facts=pl.lit(100))


def test_the_mark_is_the_targets_best_less_its_standard_error():
    table = points(("lora", 1e-3, 0.9, 1), ("sft", 1e-4, 0.3, 9), ("sft", 2e-4, 0.5, 2))
    found = mark(table, "sft")
    assert found["best"] == 0.5
    assert found["standard_error"] == pytest.approx(0.05)
    assert found["mark"] == pytest.approx(0.45)


def test_of_the_points_that_reach_the_mark_the_one_that_keeps_most_is_chosen():
    table = points(
        ("sft", 1e-4, 0.40, 30),
        ("sft", 2e-4, 0.45, 20),  # reaches it, exactly
        ("sft", 3e-4, 0.50, 10),
        ("a", 1e-4, 0.46, 5),
        ("a", 2e-4, 0.60, 5),  # as many kept, higher accuracy
        ("b", 2e-4, 0.60, 7),
        ("b", 1e-4, 0.60, 7),  # equal in both: the lower rate
        ("c", 1e-4, 0.20, 50),
        ("c", 2e-4, 0.30, 1),
    )
    found = choose(table, 0.45)
    assert found.select("name", "learning_rate", "matched").rows() == [
        ("sft", 2e-4, True),
        ("a", 2e-4, True),
        ("b", 1e-4, True),
        ("c", 2e-4, False),
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_no_point_that_reaches_the_mark_keeps_more_than_the_chosen(rows: list[tuple[str, int, int]]):
    table = points(*((name, 1e-4 * at, share / 10, kept) for at, (name, share, kept) in enumerate(rows)))
    for row in choose(table, 0.5).iter_rows(named=True):
        own = table.filter(name=row["name"])
        reached = own.filter(pl.col("id_accuracy") >= 0.5)
        assert row["matched"] == (reached.height > 0)
        if row["matched"]:
            assert row["id_accuracy"] >= 0.5
            assert row["ood_kept"] == reached["ood_kept"].max()
        else:
            assert row["id_accuracy"] == own["id_accuracy"].max()


def test_a_crossed_mean_without_spread_has_none():
    estimate = crossed_mean(np.full((3, 40), 0.25))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.25, 0.25, 0.25))


def test_with_one_seed_the_interval_is_that_over_facts():
    row = np.random.default_rng(0).normal(size=400)
    estimate = crossed_mean(row[None], resamples=8000)
    half = 1.96 * row.std(ddof=1) / np.sqrt(400)
    assert estimate.value == pytest.approx(row.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.05)


def test_spread_between_seeds_widens_the_interval_and_facts_alone_do_not_hide_it():
    generator = np.random.default_rng(1)
    facts = generator.normal(size=(1, 300)).repeat(3, axis=0)
    shifted = facts + np.array([[-0.5], [0.0], [0.5]])
    same, moved = crossed_mean(facts), crossed_mean(shifted)
    assert moved.value == pytest.approx(same.value)
    assert moved.high - moved.low > 3 * (same.high - same.low)


def test_the_interval_covers_as_often_as_it_says():
    """Hits of two methods on the same facts: a fact's own chance, a seed's own shift, the rest is luck."""
    generator, covered, trials = np.random.default_rng(2), 0, 200
    for _ in range(trials):
        chance = generator.uniform(0.1, 0.9, size=(1, 100))
        shift = generator.normal(scale=0.02, size=(3, 1))
        pair = [generator.random((3, 100)) < np.clip(chance + sign * shift, 0, 1) for sign in (0, 1)]
        estimate = crossed_mean(pair[1].astype(float) - pair[0], seed=int(generator.integers(1 << 30)), resamples=400)
        covered += estimate.low <= 0 <= estimate.high
    assert covered / trials > 0.92


def test_a_table_that_is_none_is_refused():
    for table in (np.zeros(3), np.zeros((0, 3))):
        with pytest.raises(ValueError, match="seeds by facts"):
            crossed_mean(table)


def fact_rows(generator: np.random.Generator) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    known = {fact: bool(generator.random() < 0.5) for fact in range(30)}
    known |= {0: True, 15: True}
    for name in ("sft", "ours"):
        for seed in (3, 1, 2):
            for fact in generator.permutation(30):  # no order may matter
                rows.append(
                    {
                        "name": name,
                        "seed": seed,
                        "id": f"f{fact}",
                        "domain": "id" if fact < 15 else "ood",
                        "level": int(fact % 5),
                        "contains": bool(generator.random() < 0.6),
                        "strict": bool(generator.random() < 0.5),
                        "known": known[int(fact)],
                        "kl": float(generator.random()) if known[int(fact)] else None,
                        "end_kl": float(generator.random()) if known[int(fact)] else None,
                    }
                )
    return pl.DataFrame(rows).with_columns(pl.col("name", "id", "domain").cast(pl.Categorical))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_means_and_differences_equal_a_plain_loop(seed: int):
    facts = fact_rows(np.random.default_rng(seed))
    rows = facts.to_dicts()

    def mean(name: str, column: str, domain: str | None, known: bool) -> float:
        own = [row for row in rows if row["name"] == name and (domain is None or row["domain"] == domain)]
        values = [float(row[column]) for row in own if row["known"] or not known]
        return sum(values) / len(values)

    found = means(facts, ["sft", "ours"])
    expected = {
        "id_accuracy": ("contains", "id", False),
        "id_strict": ("strict", "id", False),
        "ood_accuracy": ("contains", "ood", False),
        "id_kept": ("contains", "id", True),
        "ood_kept": ("contains", "ood", True),
        "ood_kept_strict": ("strict", "ood", True),
        "kl": ("kl", None, True),
        "end_kl": ("end_kl", None, True),
    }
    assert set(found["measure"]) == set(expected)
    for row in found.iter_rows(named=True):
        assert row["value"] == pytest.approx(mean(row["name"], *expected[row["measure"]]))
        assert row["low"] <= row["value"] <= row["high"]
    for row in differences(facts, ["sft", "ours"], ["sft"]).iter_rows(named=True):
        assert (row["name"], row["against"]) == ("ours", "sft")
        own, other = (mean(name, *expected[row["measure"]]) for name in ("ours", "sft"))
        assert row["value"] == pytest.approx(own - other)


def test_values_are_paired_by_seed_and_fact():
    facts = fact_rows(np.random.default_rng(5))
    table = by_seed(facts, "sft", "ood_accuracy")
    order = sorted({row["id"] for row in facts.filter(domain="ood").to_dicts()})
    for at, seed in enumerate((1, 2, 3)):
        for place, fact in enumerate(order):
            (row,) = facts.filter(name="sft", seed=seed).filter(pl.col("id") == fact).to_dicts()
            assert table[at, place] == float(row["contains"])


def test_seeds_asked_different_facts_are_refused():
    facts = fact_rows(np.random.default_rng(5))
    fewer = facts.filter(~((pl.col("seed") == 2) & (pl.col("id") == "f0") & (pl.col("name") == "sft")))
    with pytest.raises(ValueError, match="different facts"):
        by_seed(fewer, "sft", "id_accuracy")


UP, DOWN, OPEN = Interval(0.1, 0.05, 0.2), Interval(-0.1, -0.2, -0.05), Interval(0.05, -0.01, 0.1)


@pytest.mark.parametrize(
    ("kept", "accuracy", "matched", "said"),
    [
        (UP, OPEN, True, "supported"),
        (UP, UP, True, "supported"),
        (UP, DOWN, True, "not supported"),
        (UP, OPEN, False, "not supported"),
        (OPEN, OPEN, True, "not resolved"),
        (DOWN, OPEN, True, "not supported"),
    ],
)
def test_a_claim_is_supported_only_where_everything_is(kept: Interval, accuracy: Interval, matched: bool, said: str):
    assert verdict(kept, accuracy, matched) == said


PLAN: dict[str, Any] = {
    "scored": 60,
    "levels": {0: 8, 1: 4},
    "mastery": {"templates": 3, "samples": 4, "temperature": 1.0},
    "max_new_tokens": 4,
    "training": {"batch_size": 4},
    "test_seeds": [1, 2],
    "ours": "lora",
    "against": ["sft"],
    "methods": [
        {"name": "lora", "method": "lora", "learning_rates": [0.03], "strengths": {"lora.rank": [2]}},
        {"name": "sft", "method": "sft", "learning_rates": [0.003, 0.01]},
    ],
}


def write_plan(path: Path, **changed: Any) -> Path:
    path.write_text(yaml.safe_dump(PLAN | changed))
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"methods": [{"name": "x", "method": "nonsense", "learning_rates": [1.0]}]}, "nonsense"),
        ({"methods": [PLAN["methods"][1], PLAN["methods"][1]]}, "stands twice"),
        ({"ours": "mine"}, "ours: 'mine' is none of the methods"),
        ({"training": {"seed": 3}}, "seed is set by the comparison itself"),
        ({"training": {"batch_sizes": 3}}, "batch"),
        ({"levls": {0: 1}}, "levls"),
    ],
)
def test_a_plan_that_cannot_run_is_refused_before_anything_runs(tmp_path: Path, changed: dict[str, Any], said: str):
    against = {"target": "x", "against": [], "ours": None} if changed.get("methods", [{}])[0].get("name") == "x" else {}
    path = write_plan(tmp_path / "plan.yaml", **against | changed)
    with pytest.raises(InputError, match=said) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")


def facts_some_of_which_are_known(model: Path, path: Path) -> Path:
    """Made-up facts; every third of validation and test accepts what this very model says after solved examples."""
    said: dict[str, str] = {}
    for split in ("validation", "test"):
        asked = path.parent / f"asked-{split}"
        steps.evaluate(str(model), str(facts_file(path)), asked, form="few-shot", max_new_tokens=4, split=split)
        said |= dict(read_answers(asked).select("id", "text").iter_rows())
    facts = [
        replace(fact, answers=(*fact.answers, re.findall(r"\w+", said[fact.id])[0]))
        if fact.id in said and number % 3 == 0
        else fact
        for number, fact in enumerate(read_facts(str(path)))
    ]
    write_jsonl(path, (fact.to_json() for fact in facts))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[Path, bytes]]:
    """A whole run, killed after its first cell; its folder, its plan, and the run records there were at the kill."""
    place = tmp_path_factory.mktemp("methods")
    base_folder = tiny.checkpoint(place / "model", "llama-untied", seed=10)  # says words, not marks alone
    source = facts_some_of_which_are_known(base_folder, place / "facts.jsonl")
    plan, out = write_plan(place / "plan.yaml", model=str(base_folder), facts=str(source)), place / "out"
    command = [sys.executable, str(BENCHMARKS / "methods.py"), str(plan), "--out", str(out)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    end = time.monotonic() + 120
    while not list(out.glob("sweep/*/run.json")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.read_bytes() for path in (*out.glob("sweep/*/run.json"), *out.glob("base/*/run.json"))}
    methods.run(read(plan), out)
    methods.publish(plan, out, place / "docs")
    return out, plan, kept


def test_a_killed_run_goes_on_and_runs_no_finished_cell_again(finished: tuple[Path, Path, dict[Path, bytes]]):
    out, _, kept = finished
    assert any(path.parent.parent.name == "sweep" for path in kept)
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(list(out.glob("sweep/*/run.json"))) == 3
    assert len(list(out.glob("test/*/run.json"))) == 4
    assert not list(out.rglob("*.safetensors"))
    assert not [path for path in (out / "sweep").iterdir() if path.name.startswith(".")]


def test_test_facts_are_asked_after_the_choice_alone(finished: tuple[Path, Path, dict[Path, bytes]]):
    out, plan, _ = finished
    test = {fact.id for fact in read_facts(read(plan).facts, split="test")}
    for path in out.glob("sweep/*/eval/answers.parquet"):
        assert not test & set(pl.read_parquet(path)["id"])
    for path in out.glob("test/*/eval/answers.parquet"):
        assert test == set(pl.read_parquet(path)["id"])
    last = max(read_json(path)["ended"] for path in out.glob("sweep/*/run.json"))
    assert all(read_json(path)["started"] >= last for path in out.glob("test/*/run.json"))


def test_nothing_is_trained_again_and_the_choice_stands(
    finished: tuple[Path, Path, dict[Path, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, plan, _ = finished

    def never(*_: Any) -> None:
        raise AssertionError("a finished cell was trained again")

    monkeypatch.setattr(steps, "train", never)
    before = (out / "tables" / "test.parquet").read_bytes()
    methods.run(read(plan), out)
    assert (out / "tables" / "test.parquet").read_bytes() == before
    assert "all: about 0 min left" in methods.estimate(read(plan), out)
    entries = [PLAN["methods"][0], PLAN["methods"][1] | {"learning_rates": [0.01]}]
    fewer = write_plan(tmp_path / "plan.yaml", **yaml.safe_load(plan.read_text()) | {"methods": entries})
    with pytest.raises(InputError, match=r"choice\.json: test was measured under this choice"):
        methods.run(read(fewer), out)


def test_tables_and_page_say_what_the_cells_measured(finished: tuple[Path, Path, dict[Path, bytes]], tmp_path: Path):
    out, _, _ = finished
    docs = out.parent / "docs"
    table = pl.read_parquet(docs / "methods" / "test.parquet")
    for row in table.iter_rows(named=True):
        (folder,) = (
            path.parent
            for path in out.glob("test/*/run.json")
            if (entry := read_json(path)["options"]["cell"])["name"] == row["name"] and entry["seed"] == row["seed"]
        )
        metrics = read_json(folder / "eval" / "metrics.json")
        assert row["id_accuracy"] == pytest.approx(metrics["contains"]["id"]["micro"]["value"])
        assert row["ood_strict"] == pytest.approx(metrics["strict"]["ood"]["micro"]["value"])
        assert row["kl"] == pytest.approx(read_json(folder / "drift" / "metrics.json")["kl_tuned_base"], rel=1e-5)
        assert 0 < row["relative_norm"] < 10
        assert row["id_kept"] <= row["id_known"]
        assert len(read_facts(str(out / "base" / "sets" / f"{row['seed']}-facts.jsonl"))) == 12
    page = (docs / "methods.md").read_text()
    assert "Our method, `lora`, keeps more known out-of-domain facts than `sft`" in page
    for name in ("lost", "test", "sweep"):
        assert f"methods/{name}.svg" in page
        assert (docs / "methods" / f"{name}.svg").read_text().startswith("<svg")
    methods_page.build(docs)
    assert (docs / "methods.md").read_text() == page
    assert sum(path.stat().st_size for path in (docs / "methods").iterdir()) < 2_000_000
