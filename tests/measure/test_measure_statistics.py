"""Intervals against theory, simulation and slow twins."""

import math
import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from knowshift.errors import InputError
from knowshift.measure.statistics import (
    bootstrap_mean,
    headline,
    headline_difference,
    mcnemar_exact,
    paired_difference,
    wilson,
)


def slow_mean(values, strata, groups):
    """Mean over groups of the mean over strata, in plain Python."""
    cells = {}
    for value, stratum, group in zip(values, strata, groups, strict=True):
        cells.setdefault(group, {}).setdefault(stratum, []).append(value)
    means = [[sum(cell) / len(cell) for cell in inner.values()] for inner in cells.values()]
    return sum(sum(inner) / len(inner) for inner in means) / len(means)


def slow_interval(values, strata, groups, resamples, seed, ends=None):
    """The stratified bootstrap written out: draw rows of each cell, or an end of the scale, widen, take the mean."""
    generator = np.random.default_rng(seed)
    cells = {}
    for index, key in enumerate(zip(groups, strata, strict=True)):
        cells.setdefault(key, []).append(values[index])
    pseudo = 0.0 if ends is None else 0.5 / len(cells)
    drawn = []
    for _ in range(resamples):
        rows, own_strata, own_groups = [], [], []
        for (group, stratum), cell in cells.items():
            size = len(cell)
            chances = np.array([1.0] * size + [pseudo] * 2 * (ends is not None))
            pool = np.array([*cell, *(ends or ())])
            centre = (pool * chances).sum() / chances.sum()
            sample = generator.choice(pool, size, p=chances / chances.sum())
            mean = sample.mean() if size == 1 else centre + (sample.mean() - centre) * math.sqrt(size / (size - 1))
            rows.append(mean)
            own_strata.append(stratum)
            own_groups.append(group)
        drawn.append(slow_mean(rows, own_strata, own_groups))
    return np.quantile(drawn, [0.025, 0.975])


def mixed(seed, size, distinct):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=size) if distinct else (generator.random(size) < 0.3).astype(float)
    return values, generator.integers(0, 4, size), generator.integers(0, 2, size)


@pytest.mark.parametrize("ends", [None, (-9.0, 9.0)], ids=["no ends", "ends"])
@pytest.mark.parametrize("distinct", [False, True], ids=["few values", "many values"])
def test_bootstrap_equals_its_slow_twin(distinct, ends):
    values, strata, groups = mixed(3, 50, distinct)  # about six in a cell, so that what is put right there shows
    fast = bootstrap_mean(values, strata, groups, ends=ends, resamples=20_000)
    assert fast.value == pytest.approx(slow_mean(values, strata, groups), abs=1e-12)
    low, high = slow_interval(values, strata, groups, 6000, seed=1, ends=ends)
    width = high - low
    assert fast.low == pytest.approx(low, abs=0.03 * width)
    assert fast.high == pytest.approx(high, abs=0.03 * width)


def test_booleans_bring_their_ends_along():
    values, strata, groups = mixed(3, 50, distinct=False)
    hits = values > 0
    assert bootstrap_mean(hits, strata, groups) == bootstrap_mean(values, strata, groups, ends=(0, 1))
    assert bootstrap_mean(hits, strata, groups) != bootstrap_mean(values, strata, groups)
    other = np.roll(hits, 1)
    assert paired_difference(hits, other) == bootstrap_mean(other.astype(float) - hits, ends=(-1, 1))


def test_where_nothing_changed_the_interval_is_no_point():
    few, many = (paired_difference([True] * size, [True] * size) for size in (20, 2000))
    for estimate in (few, many):
        assert estimate.low < estimate.value == 0.0 < estimate.high
    assert few.high - few.low > 10 * (many.high - many.low)
    assert bootstrap_mean([True] * 20).high == 1.0
    assert bootstrap_mean([2.5] * 20).low == 2.5  # of a scale without ends nothing more can be said


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.sampled_from("ab")), min_size=1, max_size=40))
def test_the_value_is_the_mean_of_means_and_lies_in_its_interval(rows):
    values, strata, groups = (list(column) for column in zip(*rows, strict=True))
    estimate = bootstrap_mean(values, strata, groups, resamples=200)
    assert estimate.value == pytest.approx(slow_mean(values, strata, groups), abs=1e-12)
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1


def test_every_stratum_counts_the_same_whatever_its_size():
    values = [1.0] * 90 + [0.0] * 10
    assert bootstrap_mean(values, [0] * 90 + [1] * 10).value == pytest.approx(0.5)
    assert bootstrap_mean(values).value == pytest.approx(0.9)


def test_same_seed_same_interval_other_seed_other_interval():
    values, strata, groups = mixed(0, 200, distinct=True)
    first = bootstrap_mean(values, strata, groups, seed=5)
    assert first == bootstrap_mean(values, strata, groups, seed=5)
    assert first != bootstrap_mean(values, strata, groups, seed=6)


def test_pairing_narrows_the_interval():
    generator = np.random.default_rng(0)
    before = generator.random(400) < 0.5
    after = before ^ (generator.random(400) < 0.05)
    paired = paired_difference(before, after)
    apart = wilson(int(after.sum()), 400)
    assert paired.value == pytest.approx(after.mean() - before.mean())
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)


@pytest.mark.parametrize(
    ("sizes", "lost", "gained"),
    [
        ([30] * 5, 0.25, 0.1),
        ([5] * 5, 0.25, 0.1),
        ([10] * 5, 0.05, 0.02),
        ([10] * 5, 0.1, 0.1),  # no true change
        ([20, 12, 10, 5, 3], 0.25, 0.1),
    ],
)
def test_paired_interval_covers_the_truth_19_times_in_20(sizes, lost, gained):
    generator = np.random.default_rng(11)
    chances = np.linspace(0.1, 0.9, 5)
    strata = np.tile(np.repeat(np.arange(5), sizes), 2)
    groups = np.repeat(["id", "ood"], sum(sizes))
    known = chances[strata]
    truth = float(np.mean((1 - chances) * gained - chances * lost))
    covered = 0
    trials = 1500
    for trial in range(trials):
        before = generator.random(len(known)) < known
        after = np.where(before, generator.random(len(known)) >= lost, generator.random(len(known)) < gained)
        estimate = paired_difference(before, after, strata, groups, seed=trial, resamples=400)
        covered += estimate.low <= truth <= estimate.high
    assert 0.93 <= covered / trials <= 0.97


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5])
def test_wilson_covers_exactly_as_theory_says(share):
    trials = 120
    hits = range(trials + 1)
    inside = [estimate.low <= share <= estimate.high for estimate in (wilson(hit, trials) for hit in hits)]
    chance = [math.comb(trials, hit) * share**hit * (1 - share) ** (trials - hit) for hit in hits]
    assert 0.92 <= sum(p for p, is_inside in zip(chance, inside, strict=True) if is_inside) <= 0.98


@given(st.integers(1, 500).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_equals_scipy(pair):
    hits, trials = pair
    own, reference = wilson(hits, trials), binomtest(hits, trials).proportion_ci(method="wilson")
    assert (own.low, own.high) == (pytest.approx(reference.low, abs=1e-12), pytest.approx(reference.high))
    assert own.low <= own.value <= own.high


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_twice_the_smaller_binomial_tail(lost, gained):
    changed = lost + gained
    tail = sum(math.comb(changed, k) for k in range(min(lost, gained) + 1)) / 2**changed
    assert mcnemar_exact(lost, gained) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar_exact(lost, gained) == mcnemar_exact(gained, lost)


def test_mcnemar_equals_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar

    for lost, gained in [(0, 0), (1, 0), (3, 3), (12, 4), (0, 9), (85, 60), (400, 471)]:
        own = mcnemar_exact(lost, gained)
        if lost + gained:
            assert own == pytest.approx(float(mcnemar([[50, lost], [gained, 20]], exact=True).pvalue), rel=1e-9)
        else:
            assert own == 1.0


def table(rows):
    """(id, domain, level, contains) as a table of answers."""
    schema = {"id": pl.String, "domain": pl.String, "level": pl.Int8, "contains": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_headline_is_the_mean_of_domain_means_over_levels():
    rows = [("a", "id", 0, False), ("b", "id", 4, True), ("c", "id", 4, True), ("d", "ood", 1, False)]
    assert headline(table(rows)).value == pytest.approx((0.5 + 0.0) / 2)


def test_headline_leaves_out_facts_without_a_level_where_others_have_one():
    rows = [("a", "id", 0, False), ("b", "id", None, True), ("c", "ood", None, True), ("d", "ood", None, False)]
    assert headline(table(rows)).value == pytest.approx((0.0 + 0.5) / 2)


def test_headline_difference_is_the_difference_of_headlines():
    generator = np.random.default_rng(2)
    ids = [str(index) for index in range(300)]
    domains, levels = generator.choice(["id", "ood"], 300), generator.integers(0, 5, 300)
    before, after = (
        table(list(zip(ids, domains, levels.tolist(), (generator.random(300) < p).tolist(), strict=True)))
        for p in (0.5, 0.7)
    )
    found = headline_difference(before, after.sample(fraction=1.0, shuffle=True, seed=1))
    assert found.value == pytest.approx(headline(after).value - headline(before).value)
    assert found.low < found.value < found.high
    own = before.filter(pl.col("domain") == "id")
    with pytest.raises(InputError, match="stand only in the second"):
        headline_difference(own, after)


def test_no_values_and_uneven_pairs_are_refused():
    with pytest.raises(ValueError, match="needs a row of values"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="pairs are needed"):
        paired_difference([1], [1, 0])
    with pytest.raises(ValueError, match="labels"):
        bootstrap_mean([1, 0], [1])
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(0, 0)


def test_two_thousand_facts_take_well_under_two_seconds():
    values, strata, groups = mixed(0, 2000, distinct=True)
    start = time.process_time()
    bootstrap_mean(values, strata, groups, resamples=2000)
    assert time.process_time() - start < 2
