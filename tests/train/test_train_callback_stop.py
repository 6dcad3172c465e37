"""``--stop-on-drift``: the run ends where the bound is passed, and says so wherever somebody may look."""

import json
import math
from pathlib import Path

import polars as pl
import pytest
import taught
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from commands import refused, run
from knowshift import models
from knowshift.errors import InputError
from knowshift.facts.fact import write_jsonl
from knowshift.train.knowledge.bounds import Bounds, Score, parse_bounds
from knowshift.train.knowledge.pace import MOST, planned
from knowshift.train.knowledge.panel import LEAST, affordable

PAIRS = [{"prompt": f"<|question|>Who is {n}?<|answer|>", "completion": f"abc {n} xyz"} for n in range(40)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that knows facts after one solved example each, the facts, and something else to learn."""
    folder = tmp_path_factory.mktemp("stop")
    taught.taught(folder / "base", form="few-shot")
    write_jsonl(folder / "facts.jsonl", [fact.to_json() for fact in taught.FACTS])
    write_jsonl(folder / "train.jsonl", [json.dumps(pair) for pair in PAIRS])
    write_jsonl(folder / "texts.jsonl", [json.dumps({"prompt": "Question: What", "completion": " abc"})])
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))


def train(place: Path, out: Path, *flags: object) -> int:
    fixed = ("--fp32", "--learning-rate", 3e-3, "--batch-size", 4, "--scheduler", "constant", "--drift-every", 1)
    given = (*flags,) if "--drift-text" in flags else ("--drift-facts", place / "facts.jsonl", *flags)
    return run("train", place / "base", "--data", place / "train.jsonl", "--out", out, *fixed, *given)


@pytest.fixture(scope="module")
def watched(place: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """What a run that may go on to its end measures."""
    out = tmp_path_factory.mktemp("watched") / "out"
    assert train(place, out) == 0
    drift = json.loads((out / "run.json").read_text())["drift"]
    assert drift["stopped"] is None and [score["step"] for score in drift["scores"]] == list(range(1, 11))
    assert drift["panel"] >= 3 and drift["asked"] == 9
    return drift["scores"]


@pytest.mark.parametrize("rewind", [False, True])
def test_a_run_ends_beyond_the_bound(
    place: Path, watched: list[dict[str, float]], tmp_path: Path, rewind: bool
) -> None:
    bound = (watched[3]["knowledge_kl"] + watched[4]["knowledge_kl"]) / 2
    first = next(score["step"] for score in watched if score["knowledge_kl"] > bound)
    assert first > 1
    out = tmp_path / "out"
    assert train(place, out, "--stop-on-drift", bound, *(["--drift-rewind"] if rewind else [])) == 0
    entry = json.loads((out / "run.json").read_text())
    stopped = entry["drift"]["stopped"]
    assert entry["drift"]["scores"] == watched[:first]
    assert (stopped["step"], stopped["measure"], stopped["bound"]) == (first, "kl", bound)
    assert stopped["value"] == watched[first - 1]["knowledge_kl"] and f"at step {first}" in stopped["reason"]
    assert stopped["weights_of_step"] == (first - 1 if rewind else first)
    assert entry["options"]["stop_on_drift"] == str(bound) and entry["options"]["drift_rewind"] is rewind
    log = pl.read_parquet(out / "train_log.parquet")
    assert log.height == first
    assert log["knowledge_kl"].to_list() == [score["knowledge_kl"] for score in watched[:first]]
    card = (out / "README.md").read_text()
    assert stopped["reason"] in card and f"weights of step {stopped['weights_of_step']}" in card
    # The weights are those of that step: a run of just so many steps writes the same bits.
    short = tmp_path / "short"
    assert train(place, short, "--max-steps", stopped["weights_of_step"]) == 0
    left, right = (load_file(folder / "model.safetensors") for folder in (out, short))
    assert all((left[name] == right[name]).all() for name in left)
    models.load_model(out)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_facts_lost_with_an_adapter(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = (
        "--method",
        "lora",
        "--learning-rate",
        5e-3,
        "--epochs",
        3,
        "--stop-on-drift",
        "lost=0.3",
        "--drift-rewind",
    )
    assert train(place, out, *flags) == 0
    stopped = json.loads((out / "run.json").read_text())["drift"]["stopped"]
    assert stopped["measure"] == "lost" and stopped["value"] > 0.3
    assert stopped["weights_of_step"] == stopped["step"] - 1
    assert (out / "adapter_model.safetensors").is_file() and not (out / "training_args.bin").exists()


def test_a_text_is_watched(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train(place, out, "--drift-text", place / "texts.jsonl", "--stop-on-drift", "kl=1e-9") == 0
    drift = json.loads((out / "run.json").read_text())["drift"]
    assert drift["stopped"]["step"] == 1 and "knowledge_lost" not in drift["scores"][0]


def test_a_resumed_run_ends_where_the_undisturbed_does(
    place: Path, watched: list[dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowshift.train.knowledge import callback

    bound = (watched[3]["knowledge_kl"] + watched[4]["knowledge_kl"]) / 2
    flags = ("--stop-on-drift", f"kl={bound}", "--drift-rewind", "--save-steps", 2)
    assert train(place, tmp_path / "whole", *flags) == 0
    scored = callback.score

    def dies(*arguments: object, step: int, **others: object) -> Score:
        if step == 4:
            raise RuntimeError("as if killed")
        return scored(*arguments, step=step, **others)

    monkeypatch.setattr(callback, "score", dies)
    with pytest.raises(RuntimeError, match="as if killed"):
        train(place, tmp_path / "broken", *flags)
    monkeypatch.undo()
    assert train(place, tmp_path / "broken", *flags) == 0
    whole, broken = (json.loads((tmp_path / name / "run.json").read_text())["drift"] for name in ("whole", "broken"))
    assert whole == broken and whole["stopped"]["step"] > 4
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all((left[name] == right[name]).all() for name in left)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stop-on-drift", "loss=1"), "--stop-on-drift loss=1: 'loss' is unknown"),
        (("--stop-on-drift", "much"), "'much' is no number"),
        (("--stop-on-drift", "lost=1"), "lost must be from 0 to below 1"),
        (("--stop-on-drift", "kl=nan"), "kl must be 0 or more"),
        (("--stop-on-drift", "kl=1,kl=2"), "kl is given twice"),
        (("--drift-rewind",), "--drift-rewind: needs --stop-on-drift"),
        (("--drift-text", "t.txt", "--stop-on-drift", "lost=0.1"), "no facts are known in a --drift-text"),
        (("--drift-text", "t.txt", "--drift-facts", "world"), "--drift-text: takes the place of --drift-facts"),
    ],
)
def test_options_that_cannot_be(
    place: Path, tmp_path: Path, flags: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("train", place / "base", "--data", place / "train.jsonl", "--out", tmp_path / "out")
    assert message in refused(capsys, *common, *flags)
    assert not (tmp_path / "out").exists()


def test_a_bound_passed_before_anything_was_within(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(place, tmp_path / "out", "--stop-on-drift", "0", "--drift-rewind") == 2
    error = capsys.readouterr().err
    assert "--drift-rewind: KL to the base is" in error and "no step before that was measured" in error
    assert not (tmp_path / "out").exists()


def test_bounds_are_read_as_written() -> None:
    assert parse_bounds("0.1") == parse_bounds("kl=0.1") == Bounds(kl=0.1)
    assert parse_bounds(" lost = 0.25 , kl=2") == Bounds(kl=2, lost=0.25)
    with pytest.raises(InputError, match="--stop-on-drift : '' is no number"):
        parse_bounds("")


def test_what_is_no_number_is_above_every_bound() -> None:
    score = Score(3, math.nan, 0.0, 0.0, None)
    passed = Bounds(kl=1e9, lost=0.5).passed(score)
    assert passed is not None and passed.measure == "kl" and Bounds(lost=0.5).passed(score) is None


@given(
    steps=st.integers(1, 5000),
    seconds=st.floats(1e-3, 10),
    cost=st.floats(1e-4, 50),
    setup=st.floats(0, 100),
    budget=st.floats(0.01, 0.5),
)
def test_scorings_cost_no_more_than_the_budget(
    steps: int, seconds: float, cost: float, setup: float, budget: float
) -> None:
    """But for the one at the end there always is; and what can be paid for evenly is made use of."""
    step = min(4, steps)
    spent, made = setup, []
    while step < steps:
        step = planned(step, steps, left=budget * seconds * steps - spent, cost=cost)
        assert not made or step > made[-1]
        made.append(step)
        spent += cost
    if steps > 4:
        assert made[-1] == steps
        assert spent - cost <= max(budget * seconds * steps, setup) + 1e-6
        assert len(made) <= MOST + 1
        affordable = min(MOST, steps - 4, int(min(1e6, (budget * seconds * steps - setup) / cost * 0.999)))
        assert len(made) >= affordable // 2


@given(st.lists(st.integers(20, 60), min_size=1, max_size=80), st.integers(0, 19), st.floats(0, 4000))
def test_a_short_run_asks_fewer_facts(lengths: list[int], shared: int, tokens: float) -> None:
    most = affordable(lengths, shared, tokens)
    read = [shared + sum(length - shared for length in lengths[:number]) for number in range(len(lengths) + 1)]
    assert most >= min(len(lengths), 2 * LEAST)
    assert read[most] <= tokens or most == min(len(lengths), 2 * LEAST)
    assert most == len(lengths) or read[most + 1] > tokens
