"""Means over facts and seeds against their slow twins; a study's files as facts by models."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from knowshift.measure.accuracy import summarise
from knowshift.measure.statistics import bootstrap_mean
from knowshift.study.crossed import Resampled, over_seeds
from knowshift.study.measures import gather, read
from plantedstudy import Planted, Truth


def test_one_seed_is_the_bootstrap_of_its_facts() -> None:
    random = np.random.default_rng(0)
    strata = np.repeat(np.arange(5), [40, 30, 20, 10, 5])
    hits = random.random(len(strata)) < 0.1 + 0.15 * strata
    groups = np.where(random.random(len(strata)) < 0.5, "id", "ood")
    (found,) = Resampled(strata, groups, resamples=4000).crossed([hits[:, None].astype(float)], (0.0, 1.0))
    twin = bootstrap_mean(hits, strata, groups, resamples=4000)
    assert found.value == pytest.approx(twin.value)
    assert (found.low, found.high) == pytest.approx((twin.low, twin.high), abs=0.012)
    assert found.spread is None


def test_rare_changes_are_not_certain() -> None:
    drawn = Resampled(np.zeros(50))
    (none,) = drawn.crossed([np.zeros((50, 1))], (-1.0, 1.0))
    assert none.low < 0 < none.high


def test_facts_alike_leave_students_interval() -> None:
    each = np.array([0.2, 0.3, 0.4, 0.6])
    (found,) = Resampled(np.zeros(30), pseudo=False).crossed([np.tile(each, (30, 1))])
    low, high = stats.t.interval(0.95, 3, loc=each.mean(), scale=stats.sem(each))
    assert (found.value, found.low, found.high) == pytest.approx((each.mean(), low, high))
    alone = over_seeds(each)
    assert (alone.low, alone.high, alone.spread) == pytest.approx((low, high, each.std(ddof=1)))


@pytest.mark.parametrize("seeds", [2, 3])
def test_other_trainings_are_within_the_interval(seeds: int) -> None:
    """Where a percentile bootstrap over so few seeds is far too narrow."""
    random = np.random.default_rng(seeds)
    held = 0
    for trial in range(200):
        table = (
            random.normal(0, 0.05, (60, 1)) + random.normal(0, 0.05, (1, seeds)) + random.normal(0, 0.05, (60, seeds))
        )
        (found,) = Resampled(np.repeat([0, 1, 2], 20), pseudo=False, seed=trial, resamples=200).crossed([table])
        held += found.low <= 0 <= found.high
    assert held >= 184


def test_values_with_ends_are_drawn_with_them() -> None:
    with pytest.raises(ValueError, match="pseudo"):
        Resampled(np.zeros(3)).crossed([np.zeros((3, 1))])


def test_a_files_mean_is_the_evaluations(tmp_path: Path) -> None:
    study = Planted(tmp_path, Truth(), levels=(1,), sizes=(60,), seeds=(0, 1), methods=("sft",), facts=8)
    index = study.write()
    measures = read(tmp_path)
    panel = measures.answers["planted", "test"]
    cells = index.filter(kind="eval", split="test")
    for row in cells.iter_rows(named=True):
        (place,) = panel.models.filter(key=row["key"])["place"]
        own = summarise(pl.read_parquet(tmp_path / row["folder"] / "answers.parquet"))
        for domain in ("id", "ood"):
            mean = own["contains"][domain]["mean_over_levels"]["value"]
            assert panel.each("contains", [place], domain) == pytest.approx([mean])
            for level in range(5):
                found = panel.each("contains", [place], domain, level)
                assert found == pytest.approx([own["contains"][domain]["levels"][str(level)]["value"]])
    assert panel.models.filter(kind="confirm", restoration="relative").height == 2


def test_what_cannot_be_read_is_a_failed_cell(tmp_path: Path) -> None:
    study = Planted(tmp_path, Truth(), levels=(1,), sizes=(60,), seeds=(0, 1), methods=("sft",), facts=4)
    index = study.write()
    first, second = (index.filter(kind="eval", split="test", seed=seed).row(0, named=True)["folder"] for seed in (0, 1))
    (tmp_path / first / "answers.parquet").write_bytes(b"PAR1 no table")
    table = pl.read_parquet(tmp_path / second / "answers.parquet")
    table.head(3).write_parquet(tmp_path / second / "answers.parquet")
    measures = read(tmp_path)
    broken = measures.index.filter(state="failed").sort("seed")
    assert broken["kind"].to_list() == ["eval", "eval"]
    assert "cannot be read" in broken["error"][0]
    assert "other facts" in broken["error"][1]
    assert not measures.answers["planted", "test"].models["key"].is_in(broken["key"].to_list()).any()


def test_a_cell_that_is_not_done_is_not_read() -> None:
    study = Planted(Path(), Truth(), levels=(1,), sizes=(60,), seeds=(0,), methods=("sft",), facts=4)
    index = study.in_memory().index.with_columns(state=pl.lit("waiting"))

    def load(folder: str, name: str) -> pl.DataFrame:
        raise AssertionError(f"{folder}/{name} was read")

    measures = gather(index, load)
    assert not measures.answers
    assert measures.models == ["planted"]
