"""One seed for every random draw.

A draw's seed is derived from what the draw is for (run seed, fact id, template, sample), never from
when it happens, so a result does not depend on batch size, order or resume.
"""

import hashlib


def derive(seed: int, *parts: object) -> int:
    """A 63-bit seed for the draw named by ``parts`` in the run with ``seed``."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
