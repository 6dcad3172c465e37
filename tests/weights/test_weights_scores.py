"""Stored bits, scores and their keys, against torch bit for bit."""

import numpy as np
import pytest
import torch
import weights_twin as twin
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from knowshift.errors import InputError
from knowshift.weights.bits import decode, encode, encode_stochastic, pick
from knowshift.weights.null import quantiles
from knowshift.weights.scores import Rule, fill_keys, key_score

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def all_bits(dtype: str) -> np.ndarray:
    if dtype != "F32":
        return np.arange(1 << 16, dtype=np.uint16)
    return np.random.default_rng(0).integers(0, 1 << 32, 100_000, np.uint32)


@pytest.mark.parametrize("dtype", TORCH)
def test_decoding_and_encoding_equal_torch(dtype: str) -> None:
    bits = all_bits(dtype)
    stored = torch.from_numpy(bits.view(f"int{8 * bits.itemsize}")).view(TORCH[dtype])
    expected = stored.float().numpy()
    values = decode(bits, dtype)
    assert np.array_equal(values, expected, equal_nan=True)
    assert np.array_equal(np.signbit(values), np.signbit(expected))
    finite = np.isfinite(values)
    assert np.array_equal(encode(values, dtype)[finite], bits[finite])
    assert np.isnan(decode(encode(values, dtype), dtype)[np.isnan(values)]).all()


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_rounding_equals_torch(dtype: str) -> None:
    values = all_bits("F32").view(np.float32)
    values = values[np.isfinite(values)]
    values = np.concatenate([values, np.ldexp(values, -np.frexp(values)[1]), np.float32([0, -0.0, 65519, 65520, 6e-8])])
    values = values[np.isfinite(values)].astype(np.float32)
    expected = torch.from_numpy(values).to(TORCH[dtype]).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(encode(values, dtype), expected)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_stochastic_rounding_keeps_the_expected_value(dtype: str) -> None:
    for value in (0.1, -0.3, 1.9999, 3e-6, 1.0, 0.0):
        drawn = decode(encode_stochastic(np.full(40_000, value, np.float32), dtype, 7, 0), dtype)
        levels = np.unique(drawn)
        assert len(levels) <= 2 and levels.min() <= np.float32(value) <= levels.max()
        step = np.ptp(levels)
        assert abs(drawn.mean(dtype=float) - np.float32(value)) <= 4 * step / 2 / np.sqrt(drawn.size)


numbers = st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, -0.0, 1e-8, -1e-8, 1e-30, 0.02, 0.0200001])


@settings(max_examples=150, deadline=None)
@given(
    base=arrays(np.float32, 24, elements=numbers),
    tuned=arrays(np.float32, 24, elements=numbers),
    rank=st.sampled_from(["relative", "absolute", "base-magnitude"]),
)
def test_scores_equal_torch_bit_for_bit(base: np.ndarray, tuned: np.ndarray, rank: str) -> None:
    for arithmetic in ("bfloat16", "float32"):
        rule = Rule(rank=rank, arithmetic=arithmetic)
        keys = fill_keys(base, tuned, rule, "w", 0, np.empty(24, np.uint32))
        expected = twin.score(torch.from_numpy(base), torch.from_numpy(tuned), rank, arithmetic).float().abs()
        assert [key_score(int(key), rule) for key in keys] == expected.tolist()


@pytest.mark.parametrize("rank", ["relative", "absolute", "base-magnitude"])
def test_bfloat16_scores_equal_torch_for_every_base_value(rank: str) -> None:
    """Every finite bfloat16 as base, beside changes of all magnitudes."""
    base = decode(np.arange(0x7F80, dtype=np.uint16), "BF16")
    base = base[base < 1e30]
    for scale in (0.0, 1e-12, 1e-8, 1e-4, 0.3):
        noise = np.random.default_rng(0).standard_normal(base.size).astype(np.float32)
        tuned = decode(encode(base + np.float32(scale) * noise, "BF16"), "BF16")
        rule = Rule(rank, "top", "all", "bfloat16")
        keys = fill_keys(base, tuned, rule, "w", 0, np.empty(base.size, np.uint32))
        score = twin.score(torch.from_numpy(base), torch.from_numpy(tuned), rank, "bfloat16").abs()
        assert [key_score(int(key), rule) for key in keys] == score.float().tolist()


# Of each sign and every fourth exponent three mantissas; both zeros, the smallest, 1e-8 as stored, the largest.
SPREAD = np.array(
    [
        sign | exponent << 7 | mantissa
        for sign in (0, 0x8000)
        for exponent in range(0, 255, 4)
        for mantissa in (0, 1, 77)
    ]
    + [0x8000, 1, 0x7F, 0x80, 0x322B, 0x322C, 0x322D, 0x7F7F, 0xFF7F],
    np.uint16,
)


@pytest.mark.parametrize("every", ["base", "tuned"])
@pytest.mark.parametrize("rank", ["relative", "absolute", "base-magnitude"])
def test_bfloat16_scores_equal_torch_for_all_65536_patterns(every: str, rank: str) -> None:
    """Whatever is finite, on either side: the very bits, those of scores beyond the type's range included."""
    patterns = np.arange(1 << 16, dtype=np.uint16)
    patterns = patterns[np.isfinite(decode(patterns, "BF16"))]
    assert patterns.size == (1 << 16) - 256
    rule = Rule(rank, "top" if rank != "base-magnitude" else "bottom", "all", "bfloat16")
    for few in np.array_split(SPREAD, 12):
        grid = np.tile(patterns, few.size), np.repeat(few, patterns.size)
        base, tuned = grid if every == "base" else grid[::-1]
        values = [decode(side, "BF16") for side in (base, tuned)]
        keys = fill_keys(*values, rule, "w", 0, np.empty(base.size, np.uint32))
        sides = [torch.from_numpy(side.view(np.int16)).view(torch.bfloat16) for side in (base, tuned)]
        score = twin.score(*sides, rank, "bfloat16").abs()
        assert np.array_equal(keys >> 16, score.view(torch.int16).numpy()) and not (keys & 0xFFFF).any()


def test_bfloat16_scores_equal_torch_on_real_magnitudes() -> None:
    generator = torch.Generator().manual_seed(0)
    base = (torch.randn(200_000, generator=generator) * 0.02).bfloat16()
    tuned = (base.float() + torch.randn(200_000, generator=generator) * 1e-4).bfloat16()
    rule = Rule(arithmetic="bfloat16")
    keys = fill_keys(base.float().numpy(), tuned.float().numpy(), rule, "w", 0, np.empty(200_000, np.uint32))
    expected = ((tuned - base).abs() / (base.abs() + 1e-8)).view(torch.int16).numpy().astype(np.uint32)
    assert np.array_equal(keys >> 16, expected)


def test_keys_order_as_the_rule_says() -> None:
    base = np.float32([0.5, -0.1, 2.0, 0.0])
    tuned = np.float32([0.5, -0.2, 2.2, 0.001])
    first = {
        ("relative", "top"): 3, ("relative", "bottom"): 0, ("absolute", "top"): 2, ("absolute", "bottom"): 0,
        ("base-magnitude", "top"): 3, ("base-magnitude", "bottom"): 2,
    }  # fmt: skip
    for arithmetic in ("float32", "bfloat16"):
        for (rank, order), place in first.items():
            keys = fill_keys(base, tuned, Rule(rank, order, "all", arithmetic), "w", 0, np.empty(4, np.uint32))
            assert keys.argmax() == place and keys.max() < 1 << 31


def test_random_keys_depend_on_place_not_on_the_tile() -> None:
    rule = Rule(rank="random", seed=5)
    nothing = np.zeros(100_000, np.float32)
    whole = fill_keys(nothing, nothing, rule, "w", 0, np.empty(100_000, np.uint32))
    part = fill_keys(nothing[:500], nothing[:500], rule, "w", 4_000, np.empty(500, np.uint32))
    assert np.array_equal(whole[4_000:4_500], part)
    assert stats.kstest(whole / 2**31, "uniform").pvalue > 1e-3
    for other in (Rule(rank="random", seed=6), rule):
        name = "w" if other.seed == 6 else "v"
        keys = fill_keys(nothing, nothing, other, name, 0, np.empty(100_000, np.uint32))
        assert abs(np.corrcoef(keys, whole)[0, 1]) < 0.02


def test_null_noise_is_standard_normal() -> None:
    from knowshift.weights import kernels

    nothing = np.zeros(400_000, np.float32)
    noise = np.empty_like(nothing)
    kernels.add_noise(nothing, np.uint64(3), np.uint64(0), np.float32(1.0), quantiles(), noise)
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert abs(noise.var() - 1) < 0.01 and 4.3 < np.abs(noise).max() < 6.5


def test_pick_takes_either_side() -> None:
    for kind in (np.uint16, np.uint32):
        yes, no = np.random.default_rng(1).integers(0, np.iinfo(kind).max, (2, 1000), kind)
        mask = np.random.default_rng(2).random(1000) < 0.5
        assert np.array_equal(pick(mask, yes, no), np.where(mask, yes, no))


@pytest.mark.parametrize("flag", ["rank", "order", "of", "arithmetic"])
def test_unknown_settings_name_the_flag(flag: str) -> None:
    with pytest.raises(InputError, match=f"--{flag} nonsense: must be one of"):
        Rule(**{flag: "nonsense"})
