"""Sentences claim what an interval resolves and nothing else."""

from pathlib import Path

import fake_run
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowshift.files import read_json, write_json
from knowshift.report import headline, knowledge, weights
from knowshift.report.data import Run
from knowshift.report.words import Interval, count, listing, nats, percent, points, points_range


def test_figures_in_words() -> None:
    assert percent(0.3125) == "31.2%"
    assert points(0.0214) == "+2.1 points"
    assert points(-0.09) == "−9.0 points"
    assert points(-0.0001) == "0.0 points"
    assert points_range(Interval(0.021, -0.004, 0.039)) == "+2.1 points (−0.4 to 3.9)"
    assert count(1, "fact") == "1 fact" and count(1020, "fact") == "1,020 facts"
    assert nats(0.834) == "0.83 nats" and nats(0.0123) == "0.012 nats" and nats(0) == "0.00 nats"
    assert listing([]) == "" and listing(["a"]) == "a" and listing(["a", "b", "c"]) == "a, b and c"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run.write(tmp_path_factory.mktemp("words") / "run", facts=400)


def restoration(folder: Path, low: float, value: float, high: float) -> Run:
    metrics = read_json(folder / "metrics.json")
    entry = {"value": value, "low": low, "high": high}
    metrics["restoration"] |= {"test_difference": entry, "against_interpolation": entry}
    return Run(folder, metrics, {})


def about_restoring(run: Run) -> str:
    (sentence,) = (said for said in headline.sentences(run) if "relative change" in said or "was restored" in said)
    return sentence


ends = st.floats(-0.3, 0.3)


@settings(max_examples=40, deadline=None)
@given(st.tuples(ends, ends, ends).map(sorted))
def test_restoration_is_claimed_only_if_resolved(folder: Path, bounds: list[float]) -> None:
    run = restoration(folder, *bounds)
    tile = headline.numbers(run)[-1]
    sentence = about_restoring(run)
    low, value, high = bounds
    if low <= 0 <= high:
        assert tile.figure == "No gain resolved"
        assert "gave no gain that this test can resolve" in sentence and "not measurably different" in sentence
        assert "raised" not in sentence and "lowered" not in sentence
    else:
        assert tile.figure == points(value)
        assert ("raised" if value > 0 else "lowered") in sentence
        assert ("better than interpolating" if value > 0 else "worse than interpolating") in sentence


def test_identical_models_are_said_not_to_differ(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run", facts=400)
    base = pl.read_parquet(run / "eval/base-few-shot/answers.parquet")
    base.write_parquet(run / "eval/low/answers.parquet")
    same = pl.col("change").replace({"lost": "kept", "gained": "never"})
    path = run / "transitions/low.parquet"
    pl.read_parquet(path).with_columns(same).write_parquet(path)
    metrics = read_json(run / "metrics.json")
    metrics["accuracy"]["low"] = metrics["accuracy"]["base-few-shot"]
    write_json(run / "metrics.json", metrics)
    opened = Run.open(run)
    accuracy, facts, *_ = headline.numbers(opened)
    assert "not resolved at this sample size: 0.0 points (−" in accuracy.note
    assert facts.figure == "0 lost, 0 gained" and "no net change resolved" in facts.note
    text = " ".join(headline.sentences(opened))
    assert text.count("did not move measurably") == 2
    assert "fell" not in text and "rose" not in text
    section = knowledge.facts(opened)
    assert "lost no test fact" in section.blocks[0].takeaway  # type: ignore[union-attr]


@pytest.mark.parametrize("null", [0.55, 0.9999])
def test_a_saturated_null_is_pointed_out(tmp_path: Path, null: float) -> None:
    run = Run.open(fake_run.write(tmp_path / "run", facts=300, null=null))
    share = run.metrics["concentration"]["low"]["null"]
    takeaway = weights.concentration(run).blocks[0].takeaway  # type: ignore[union-attr]
    assert (share > 0.9) == ("this curve says nothing about training" in takeaway)


def test_a_gain_is_named_a_gain(tmp_path: Path) -> None:
    run = Run.open(fake_run.write(tmp_path / "run", gain=1.6))
    *_, tile = headline.numbers(run)
    assert tile.figure.startswith("+") and "95% interval" in tile.note
    assert "raised accuracy on the test facts: +" in about_restoring(run)


def test_out_of_domain_is_said_to_be_untouched_only_if_it_is(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run", facts=300)
    claim = "on topics that training never touched"
    assert Run.open(run).untouched and claim in " ".join(headline.sentences(Run.open(run)))
    with (run / "sets/middle.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"prompt": "p", "completion": "c", "topic": "author_of_book"}\n')
    assert claim not in " ".join(headline.sentences(Run.open(run)))
    (run / "sets/middle.jsonl").unlink()
    assert not Run.open(run).untouched


def test_models_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run", facts=300)
    metrics = read_json(run / "metrics.json")
    metrics["models"]["middle"] = dict(metrics["models"]["low"])
    write_json(run / "metrics.json", metrics)
    first, second = (model.label for model in Run.open(run).tuned)
    assert first != second and first.endswith("(low)")


def test_nothing_restored_is_said_plainly(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run", facts=300)
    metrics = read_json(run / "metrics.json")
    metrics["restoration"]["fraction"] = 0.0
    assert "nothing was restored" in about_restoring(Run(run, metrics, {}))


def test_thin_levels_are_cautioned_about(tmp_path: Path) -> None:
    """A level of few facts weighs a fifth of the mean over levels: the page says so beside that mean."""
    thin, thick = (fake_run.write(tmp_path / str(facts), facts=facts) for facts in (300, 1600))
    assert headline.caution(Run.open(thick)) == ""
    said = headline.caution(Run.open(thin))
    cells = pl.read_parquet(thin / "eval/base/answers.parquet").group_by("domain", "level").len()
    few = cells.filter(pl.col("len") < 10)
    assert said.count("level ") >= few.height > 0
    for facts in few["len"]:
        assert f"holds {facts} " in said
    assert said in knowledge.accuracy(Run.open(thin)).lead


def test_without_solved_examples_the_base_model_is_the_measure(tmp_path: Path) -> None:
    run = Run.open(fake_run.write(tmp_path / "run", facts=400, examples=False))
    text = " ".join(headline.sentences(run))
    assert "Compared with the base model, after training on" in text and "examples" not in text
    before = run.metrics["accuracy"]["base"]["ood"]["value"]
    assert headline.numbers(run)[0].figure.startswith(percent(before))
    assert "examples" not in " ".join(knowledge.facts(run).lead)


def test_divergence_at_the_end_of_the_answer_is_called_form(folder: Path) -> None:
    metrics = read_json(folder / "metrics.json")
    for model in metrics["drift"].values():
        model.pop("end", None)
    assert "form" not in " ".join(knowledge.drift(Run(folder, metrics, {})).lead)
    metrics["drift"]["low"]["end"] = {"kl_tuned_base": 7.25}
    lead = " ".join(knowledge.drift(Run(folder, metrics, {})).lead)
    assert "7.25 nats for the model trained on" in lead and "form, not counted here" in lead
