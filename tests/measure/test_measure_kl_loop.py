"""The compiled divergence against its slow twin in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from knowshift.measure.kl import divergence
from knowshift.measure.kl_loop import divergence_compiled

TYPES = st.sampled_from([torch.float32, torch.bfloat16])


def pair(rows, words, *, level, apart, shift, dtype, seed=0):
    """Logits of two models; ``apart`` is their standard deviation, ``shift`` a constant without effect."""
    generator = torch.Generator().manual_seed(seed)
    base = level * torch.randn(rows, words, generator=generator)
    tuned = base + apart * torch.randn(rows, words, generator=generator) + shift
    return base.to(dtype), tuned.to(dtype), torch.randint(words, (rows,), generator=generator)


@settings(deadline=None)
@given(
    rows=st.integers(1, 5),
    words=st.integers(2, 2000),
    level=st.floats(0.1, 20),
    apart=st.floats(1e-4, 10),
    shift=st.floats(-20, 20),
    dtype=TYPES,
    seed=st.integers(0, 2**31),
)
def test_compiled_equals_the_slow_twin(rows, words, level, apart, shift, dtype, seed):
    base, tuned, targets = pair(rows, words, level=level, apart=apart, shift=shift, dtype=dtype, seed=seed)
    found = divergence_compiled(base, tuned, targets)
    expected = divergence(base.double(), tuned.double(), targets)
    for name, ours, theirs in zip(found._fields, found, expected, strict=True):
        if ours.dtype == torch.int64:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        else:
            # Sums of float64 cancel down to 1e-13 in the twin; log-probabilities near 0 are differences.
            floor = 2e-13 if name in ("tuned_base", "base_tuned") else 1e-6
            torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=floor, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("apart", [1e-3, 0.1, 3.0])
def test_a_large_vocabulary_keeps_six_digits(dtype, apart):
    base, tuned, targets = pair(4, 50_001, level=3, apart=apart, shift=3, dtype=dtype)
    found, expected = divergence_compiled(base, tuned, targets), divergence(base.double(), tuned.double(), targets)
    np.testing.assert_allclose(found.tuned_base, expected.tuned_base, rtol=1e-6)
    np.testing.assert_allclose(found.base_tuned, expected.base_tuned, rtol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(0.1, 60), TYPES, st.integers(0, 2**31))
def test_never_negative_and_exactly_zero_for_equals(words, level, dtype, seed):
    base, tuned, targets = pair(3, words, level=level, apart=level, shift=0, dtype=dtype, seed=seed)
    found, back = divergence_compiled(base, tuned, targets), divergence_compiled(tuned, base, targets)
    assert bool((found.tuned_base >= 0).all())
    torch.testing.assert_close(found.tuned_base, back.base_tuned, rtol=1e-6, atol=1e-12)
    assert float(divergence_compiled(base, base, targets).tuned_base.max()) == 0


def test_far_apart_stays_finite():
    base, tuned = torch.zeros(1, 4), torch.tensor([[300.0, 0.0, 0.0, -300.0]])
    found = divergence_compiled(base, tuned, torch.tensor([3]))
    assert float(found.tuned_base) == pytest.approx(np.log(4))
    assert float(found.base_tuned) == pytest.approx(300 - np.log(4))
    assert float(found.target_tuned) == -600


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_only_the_damaged_row_is_no_number(damage, dtype):
    base, tuned, targets = pair(3, 700, level=3, apart=1, shift=0, dtype=dtype)
    tuned[1, 600] = damage
    found = divergence_compiled(base, tuned, targets)
    assert found.tuned_base.isnan().tolist() == [False, True, False]


def test_the_first_of_equal_logits_is_the_top_and_padding_is_no_word():
    base, tuned = (torch.tensor([row, row]) for row in ([1.0, 5.0, 5.0, 9.0], [2.0, 2.0, -1.0, float("nan")]))
    targets = torch.tensor([2, 2])
    found = divergence_compiled(base, tuned, targets, 3)
    assert (found.top_base.tolist(), found.top_tuned.tolist()) == ([1, 1], [0, 0])
    assert found.target_tuned.tolist() == pytest.approx([-1 - np.log(2 * np.e**2 + np.e**-1)] * 2)
    cut = divergence_compiled(base[:, :3], tuned[:, :3], targets)
    assert all(torch.equal(one, two) for one, two in zip(found, cut, strict=True))


def test_threads_do_not_change_a_bit():
    base, tuned, targets = pair(7, 3000, level=3, apart=1, shift=0, dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = divergence_compiled(base, tuned, targets)
        torch.set_num_threads(2)
        together = divergence_compiled(base, tuned, targets)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(alone, together, strict=True))
