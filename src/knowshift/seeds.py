"""One seed for every random draw.

A draw's seed is derived from what the draw is for (run seed, fact id, template, sample), never from
when it happens, so a result does not depend on batch size, order or resume.
"""

import hashlib

import numpy as np
import numpy.typing as npt


def derive(seed: int, *parts: object) -> int:
    """A 63-bit seed for the draw named by ``parts`` in the run with ``seed``."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def uniforms(keys: npt.NDArray[np.uint64], counter: int) -> npt.NDArray[np.float64]:
    """One uniform draw in [0, 1) for each key: draw number ``counter`` of that key's own stream.

    Counter-based (the splitmix64 finaliser on key + counter * golden ratio), so streams need no state and can
    be read in any order.
    """
    with np.errstate(over="ignore"):
        mixed = keys + np.uint64(((counter + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
