"""Compiled loops over one tile of weights.

Knows numbers only: nothing of files, tensors' names or rankings. Every array is one-dimensional and
contiguous; bfloat16 and float16 are uint16 bit patterns. A *key* is an unsigned 32-bit integer below
2**31 that orders elements: the larger it is, the earlier an element is restored. The bits of a
non-negative float order like the float, so a change score's key is simply its bits. ``EXCLUDED`` marks
elements that are not ranked at all.

The loops release the interpreter lock, so tiles run in plain threads. All of them live in this one file,
because a compiled function's cache notices changes of its own file only.
"""

from typing import Any

import numpy as np

from knowshift.compiled import bits_of, float_of, jit

RELATIVE, ABSOLUTE, BASE_MAGNITUDE = 0, 1, 2
EXCLUDED = np.uint32(0xFFFFFFFF)
BINS = 1 << 16
LANES = 4  # neighbouring elements count into different tables, so that equal keys do not wait for each other

_EPSILON = np.float32(1e-8)
_EPSILON_BFLOAT16 = np.uint32(0x322C0000).view(np.float32)  # torch rounds a scalar operand as well
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


@jit
def _bfloat16_bits(value: Any) -> Any:
    """A finite float32 rounded to bfloat16 (nearest, ties to even), as the 16 high bits of a uint32."""
    raw = bits_of(value)
    return np.uint32((raw + np.uint32(0x7FFF) + ((raw >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@jit
def _rounded(value: Any) -> Any:
    return float_of(np.uint32(_bfloat16_bits(value) << np.uint32(16)))


@jit
def _mixed(stream: Any, index: Any) -> Any:
    """The ``index``-th output of a splitmix64 generator started at ``stream``."""
    z = stream + (index + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


@jit
def from_bfloat16(bits: Any, out: Any) -> None:
    """uint16 bfloat16 patterns as float32."""
    for i in range(bits.size):
        out[i] = float_of(np.uint32(np.uint32(bits[i]) << np.uint32(16)))


@jit
def to_bfloat16(values: Any, out: Any) -> None:
    """float32 as uint16 bfloat16 patterns, rounded to nearest even; NaN stays NaN."""
    for i in range(values.size):
        value = values[i]
        out[i] = np.uint16(_bfloat16_bits(value)) if value == value else np.uint16(0x7FC0)


@jit
def to_bfloat16_stochastic(values: Any, stream: Any, start: Any, out: Any) -> None:
    """float32 as uint16 bfloat16 patterns, rounded up or down with odds that keep the expected value."""
    for i in range(values.size):
        draw = _mixed(stream, start + np.uint64(i)) & np.uint64(0xFFFF)
        out[i] = np.uint16((bits_of(values[i]) + np.uint32(draw)) >> np.uint32(16))


@jit
def survey(base: Any, tuned: Any) -> Any:
    """Squared norm of the update in float64, and how many values are not finite in base and in tuned."""
    mask = np.uint32(0x7F800000)
    bad_base = 0
    bad_tuned = 0
    energy = np.zeros(8)
    for i in range(base.size):
        bad_base += (bits_of(base[i]) & mask) == mask
        bad_tuned += (bits_of(tuned[i]) & mask) == mask
    for i in range(base.size):
        step = np.float64(tuned[i]) - np.float64(base[i])
        energy[i & 7] += step * step
    return energy.sum(), bad_base, bad_tuned


@jit
def weigh(base: Any, tuned: Any, keys: Any, weights: Any, infinite: Any) -> Any:
    """The same of values that occur ``weights`` times, and how many keys equal ``infinite``."""
    mask = np.uint32(0x7F800000)
    bad_base = 0
    bad_tuned = 0
    overflow = 0
    energy = np.zeros(8)
    for i in range(base.size):
        weight = np.int64(weights[i])
        bad_base += weight * ((bits_of(base[i]) & mask) == mask)
        bad_tuned += weight * ((bits_of(tuned[i]) & mask) == mask)
        overflow += weight * (keys[i] == infinite)
    for i in range(base.size):
        step = np.float64(tuned[i]) - np.float64(base[i])
        energy[i & 7] += step * step * weights[i]
    return energy.sum(), bad_base, bad_tuned, overflow


@jit
def change_keys(base: Any, tuned: Any, rank: Any, bfloat16: Any, keys: Any) -> None:
    """Keys of the scores by which elements are ranked.

    With ``bfloat16`` the values, the constant and the result of every operation are rounded to bfloat16, as
    torch does on bfloat16 tensors; otherwise everything is float32.
    """
    if rank == RELATIVE and bfloat16:
        for i in range(keys.size):
            b = _rounded(base[i])
            step = abs(_rounded(_rounded(tuned[i]) - b))
            keys[i] = _bfloat16_bits(step / _rounded(abs(b) + _EPSILON_BFLOAT16)) << np.uint32(16)
    elif rank == RELATIVE:
        for i in range(keys.size):
            keys[i] = bits_of(abs(tuned[i] - base[i]) / (abs(base[i]) + _EPSILON))
    elif rank == ABSOLUTE and bfloat16:
        for i in range(keys.size):
            keys[i] = _bfloat16_bits(abs(_rounded(tuned[i]) - _rounded(base[i]))) << np.uint32(16)
    elif rank == ABSOLUTE:
        for i in range(keys.size):
            keys[i] = bits_of(abs(tuned[i] - base[i]))
    elif bfloat16:
        for i in range(keys.size):
            keys[i] = _bfloat16_bits(abs(base[i])) << np.uint32(16)
    else:
        for i in range(keys.size):
            keys[i] = bits_of(abs(base[i]))


@jit
def random_keys(stream: Any, start: Any, keys: Any) -> None:
    """31 random bits for each element: a hash of the tensor's stream and the element's place in it."""
    for i in range(keys.size):
        keys[i] = _mixed(stream, start + np.uint64(i)) >> np.uint64(33)


@jit
def add_noise(base: Any, stream: Any, start: Any, scale: Any, normal: Any, out: Any) -> None:
    """``base + scale * z`` in float32, ``z`` standard normal, drawn by counter.

    A draw is the sum of two entries of ``normal``, a table of 65,536 quantiles already divided by the
    square root of two: 2**32 different values, out to six standard deviations, for two look-ups.
    """
    for i in range(base.size):
        draw = _mixed(stream, start + np.uint64(i))
        low = np.uint32(draw & np.uint64(0xFFFF))
        high = np.uint32(draw >> np.uint64(48))
        out[i] = base[i] + scale * (normal[low] + normal[high])


@jit
def tally(keys: Any, weights: Any, table: Any) -> None:
    """Count keys by their high 16 bits and add up their low 16 bits; each counts ``weights`` times.

    ``table``: int64, shape (LANES, BINS, 2). Integers, so the sums are exact in any order, and with them
    the sum of the scores themselves: within a bin a float is linear in its low bits.
    """
    for i in range(keys.size):
        key = keys[i]
        weight = np.int64(weights[i])
        lane = np.uint64(i) & np.uint64(LANES - 1)
        high = np.uint64(key >> np.uint32(16))
        table[lane, high, 0] += weight
        table[lane, high, 1] += weight * np.int64(key & np.uint32(0xFFFF))


@jit
def tally_scores(keys: Any, weights: Any, table: Any) -> None:
    """Add up weights and weighted scores by the high 16 bits of the keys of change scores.

    ``table``: float64, shape (BINS, 2).
    """
    for i in range(keys.size):
        high = np.uint64(keys[i] >> np.uint32(16))
        table[high, 0] += weights[i]
        table[high, 1] += weights[i] * np.float64(float_of(keys[i]))


@jit
def refine(keys: Any, weights: Any, slots: Any, table: Any) -> None:
    """Count the low 16 bits of keys in chosen bins; ``slots[bin]`` is the row of ``table``, or -1."""
    for i in range(keys.size):
        key = keys[i]
        slot = slots[np.uint64(key >> np.uint32(16))]
        if slot >= 0:
            table[np.uint64(slot), np.uint64(key & np.uint32(0xFFFF))] += np.int64(weights[i])


@jit
def divide(base: Any, tuned: Any, keys: Any, weights: Any, first: Any, cuts: Any, counts: Any, energy: Any) -> None:
    """Count elements, and sum their squared updates, between and at thresholds.

    ``cuts``: distinct thresholds, descending, ended by 0. ``first[bin]``: how many cuts lie in higher bins.
    Bucket 2j holds keys above ``cuts[j]`` (and below the one before), bucket 2j + 1 those equal to it.
    ``counts`` int64 and ``energy`` float64: shape (LANES, 2 * cuts.size).
    """
    for i in range(keys.size):
        key = keys[i]
        if key == EXCLUDED:
            continue
        j = np.uint64(first[np.uint64(key >> np.uint32(16))])
        while key < cuts[j]:
            j += np.uint64(1)
        bucket = j + j + np.uint64(key == cuts[j])
        lane = np.uint64(i) & np.uint64(LANES - 1)
        step = np.float64(tuned[i]) - np.float64(base[i])
        counts[lane, bucket] += np.int64(weights[i])
        energy[lane, bucket] += step * step * weights[i]


@jit
def follow_ties(base: Any, tuned: Any, keys: Any, threshold: Any, wanted: Any) -> Any:
    """The first ``wanted`` elements whose key equals ``threshold``.

    Returns their squared update, how many are still wanted after these keys, and the place behind the last.
    """
    energy = 0.0
    end = 0
    for i in range(keys.size):
        if wanted == 0:
            break
        if keys[i] == threshold:
            step = np.float64(tuned[i]) - np.float64(base[i])
            energy += step * step
            wanted -= 1
            end = i + 1
    return energy, wanted, end


@jit
def choose(keys: Any, threshold: Any, split: Any, mask: Any) -> None:
    """Mark keys above ``threshold``, and those equal to it before place ``split``."""
    for i in range(split):
        mask[i] = (keys[i] >= threshold) & (keys[i] != EXCLUDED)
    for i in range(split, keys.size):
        mask[i] = (keys[i] > threshold) & (keys[i] != EXCLUDED)


@jit
def mix(keys: Any, threshold: Any, split: Any, yes: Any, no: Any, out: Any) -> None:
    """``yes`` where ``choose`` marks, ``no`` elsewhere; excluded elements are alike in both."""
    for i in range(split):
        taken, left = yes[i], no[i]  # read both, so that there is no branch
        out[i] = taken if keys[i] >= threshold else left
    for i in range(split, keys.size):
        taken, left = yes[i], no[i]  # read both, so that there is no branch
        out[i] = taken if keys[i] > threshold else left


@jit
def pick(mask: Any, yes: Any, no: Any, out: Any) -> None:
    """Bits of ``yes`` where the mask is set, of ``no`` elsewhere, without a branch."""
    for i in range(out.size):
        out[i] = no[i] ^ ((yes[i] ^ no[i]) * mask[i])
