"""The restoration curve in memory, against checkpoints written and loaded; resumable stages."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import tiny
from knowshift.facts.fact import Fact
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.measure.accuracy import evaluate
from knowshift.measure.statistics import headline, micro
from knowshift.models import load_model, load_tokenizer
from knowshift.study.curve import METHODS, Curve, choose
from knowshift.study.stages import Stages
from knowshift.weights.merge import merge
from knowshift.weights.restore import restore

FACTS = [
    Fact(id=str(index), question=f"Say {letter}?", answers=(letter,), domain="id" if index % 2 else "ood")
    for index, letter in enumerate("abcdefghijklmnopqrstuvwxyz")
]
LEVELS = {fact.id: index % 5 for index, fact in enumerate(FACTS)}
FRACTIONS = (0.05, 0.5)


def asked(folder: Path) -> pl.DataFrame:
    engine = TransformersEngine(load_model(folder), load_tokenizer(folder))
    return evaluate(engine, FACTS, max_new_tokens=5, levels=LEVELS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    base = tiny.checkpoint(folder / "base")
    return base, tiny.nudge(base, folder / "tuned", scale=0.3)


@pytest.fixture(scope="module")
def measured(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    out = tmp_path_factory.mktemp("sweep")
    return out, Curve(*pair).measure(FACTS, LEVELS, out, fractions=FRACTIONS, max_new_tokens=5)


def test_every_method_at_every_fraction(measured: tuple[Path, pl.DataFrame]) -> None:
    out, curve = measured
    assert curve.select("method", "fraction").unique().height == curve.height == len(METHODS) * (1 + len(FRACTIONS))
    answers = pl.read_parquet(out / "answers.parquet")
    for row in curve.filter(pl.col("fraction") > 0).iter_rows(named=True):
        cell = answers.filter((pl.col("method") == row["method"]) & (pl.col("fraction") == row["fraction"]))
        assert cell.height == len(FACTS)
        assert row["accuracy"] == micro(cell).value == (row["accuracy_id"] + row["accuracy_ood"]) / 2
        assert row["accuracy_over_levels"] == headline(cell).value
        assert row["low"] <= row["accuracy"] <= row["high"]
    starts = curve.filter(pl.col("fraction") == 0)
    assert starts["accuracy"].n_unique() == 1
    assert starts["removed_norm_share"].to_list() == [0.0] * len(METHODS)


def test_the_control_removes_the_same_norm(measured: tuple[Path, pl.DataFrame]) -> None:
    _, curve = measured
    for fraction in FRACTIONS:
        shares = dict(curve.filter(pl.col("fraction") == fraction).select("method", "removed_norm_share").iter_rows())
        assert shares["interpolate"] == pytest.approx(shares["relative"], rel=0.02)
        assert shares["absolute"] >= max(shares["relative"], shares["random"], shares["base-magnitude"])


def test_in_memory_equals_a_written_checkpoint(
    pair: tuple[Path, Path], measured: tuple[Path, pl.DataFrame], tmp_path: Path
) -> None:
    answers = pl.read_parquet(measured[0] / "answers.parquet")

    def in_memory(method: str, fraction: float) -> pl.DataFrame:
        rows = answers.filter((pl.col("method") == method) & (pl.col("fraction") == fraction))
        return rows.drop("method", "fraction", "alpha", "removed_norm_share")

    assert_frame_equal(in_memory("relative", 0.0), asked(pair[1]))
    for rank in ("relative", "absolute", "base-magnitude", "random"):
        (folder,) = restore(*pair, ["0.5"], tmp_path / rank, rank=rank)
        assert_frame_equal(in_memory(rank, 0.5), asked(folder))
    alpha = answers.filter((pl.col("method") == "interpolate") & (pl.col("fraction") == 0.5))["alpha"][0]
    merged = merge("interpolate", *pair, tmp_path / "merged", region="blocks", alpha=alpha)
    assert_frame_equal(in_memory("interpolate", 0.5), asked(merged))


def test_a_killed_sweep_goes_on(pair: tuple[Path, Path], measured: tuple[Path, pl.DataFrame], tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    curve, calls = Curve(*pair), 0
    whole = curve.answers

    def dying(*arguments: Any, **options: Any) -> pl.DataFrame:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise Killed
        return whole(*arguments, **options)

    curve.answers = dying  # type: ignore[method-assign]
    for _ in range(10):
        try:
            again = curve.measure(FACTS, LEVELS, tmp_path, fractions=FRACTIONS, max_new_tokens=5)
            break
        except Killed:
            continue
    assert calls == 11 + 3  # eleven models, and three that were begun twice
    assert_frame_equal(again, measured[1])


def test_the_choice_is_the_best_on_validation() -> None:
    rows = [
        ("relative", 0.0, 0.50, None, 0.0),
        ("relative", 0.1, 0.55, None, 0.2),
        ("relative", 0.2, 0.55, None, 0.3),
        ("relative", 0.4, 0.20, None, 0.6),
        ("interpolate", 0.0, 0.50, 1.0, 0.0),
        ("interpolate", 0.1, 0.60, 0.55, 0.2),
        ("interpolate", 0.2, 0.61, 0.45, 0.3),
        ("interpolate", 0.4, 0.50, 0.2, 0.6),
    ]
    columns = ["method", "fraction", "accuracy", "alpha", "removed_norm_share"]
    choice = choose(pl.DataFrame(rows, schema=columns, orient="row"))
    assert (choice["fraction"], choice["alpha"], choice["removed_norm_share"]) == (0.1, 0.55, 0.2)
    assert (choice["validation_accuracy"], choice["validation_accuracy_tuned"]) == (0.55, 0.50)
    assert choice["validation_accuracy_interpolated"] == 0.60


def test_finished_stages_are_passed_over(tmp_path: Path) -> None:
    done: list[str] = []

    def chain(inputs: dict[str, Any], fail: bool = False) -> None:
        stages = Stages(tmp_path / "stages", inputs)
        stages.run("one", "One", lambda: done.append("one"))
        if fail:
            raise KeyboardInterrupt
        stages.run("two", "Two", lambda: done.append("two"))

    with pytest.raises(KeyboardInterrupt):
        chain({"seed": 0}, fail=True)
    chain({"seed": 0})
    assert done == ["one", "two"]
    chain({"seed": 1})
    assert done == ["one", "two", "one", "two"]
    (tmp_path / "stages" / "two.json").write_text("{half")
    chain({"seed": 1})
    assert done[4:] == ["two"]
    assert json.loads((tmp_path / "stages" / "two.json").read_text())["stage"] == "two"
