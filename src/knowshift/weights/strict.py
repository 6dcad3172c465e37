"""JSON from files that nobody vouches for, read as the safetensors format demands it.

Python's reader lets pass what other readers refuse or read otherwise: a key that stands twice, NaN, halves of
surrogate pairs. Here that is an error.
"""

import json
import math
from typing import Any

from knowshift.errors import InputError

LIMIT = 100_000_000  # bytes: the safetensors format's own limit of a header


def strict_json(raw: bytes, place: str) -> Any:
    """The value that ``raw`` holds.

    Raises:
        InputError: beginning with ``place`` if it is not JSON in UTF-8, or holds a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"{place} holds {quoted(key)} twice")
            key.encode()
            if isinstance(value, str):
                value.encode()
            found[key] = value
        return found

    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not valid JSON: {quoted(error, str)}") from error


def quoted(value: Any, form: Any = repr) -> str:
    """``value`` as a message shows it: one line, and not a long one."""
    try:
        text = form(value)
    except (RecursionError, ValueError):  # nested too deep, or a number of too many digits
        return f"a {type(value).__name__} that cannot be shown"
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 160 else f"{text[:120]}...{text[-30:]}"


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{quoted(text, str)} is out of range")
    return value
