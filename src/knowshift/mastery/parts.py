"""The files of a store: each is named by its content, so that damage shows, and many small ones become few.

``000007-000009-<digest>.parquet`` holds what was added as number 7 to 9. It is written whole and never changed.
A file whose numbers lie within another's was merged into that one by a process that was killed before it could
remove it: it is passed over. Knows files and columns; not keys, spans or verdicts.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from knowshift.errors import InputError
from knowshift.files import atomic_file

RECORD: dict[str, Any] = {
    "high": pl.UInt64,  # the key's two halves
    "low": pl.UInt64,
    "first": pl.Int32,  # number of the first draw of the span
    "count": pl.Int32,
    "hits": pl.List(pl.Boolean),  # one verdict a draw
    "strict": pl.List(pl.Boolean),
    "greedy": pl.Boolean,  # verdict on the greedy continuation, null where it was not asked for
    "greedy_strict": pl.Boolean,
    "kept": pl.Boolean,  # whether the next three are there
    "texts": pl.List(pl.String),
    "tokens": pl.List(pl.Int32),
    "finish": pl.List(pl.String),
}
TEXT_COLUMNS = ("texts", "tokens", "finish")

# When more than MANY files are smaller than half of FULL bytes, they are merged into files of about FULL. One is read
# as a whole, so this also bounds what reading takes.
MANY = 64
FULL = 1 << 20

_NAME = re.compile(r"(\d{6,})-(\d{6,})-([0-9a-f]{16})\.parquet")


class Part(NamedTuple):
    """A file of a store, by its name: the numbers of what was added, and the digest of its bytes."""

    first: int
    last: int
    digest: str
    path: Path

    def within(self, other: "Part") -> bool:
        """Whether ``other`` was merged from this file among others."""
        return other.first <= self.first and self.last <= other.last and self[:2] != other[:2]


def list_parts(folder: Path) -> tuple[list[Part], list[Part]]:
    """The parts that count, in the order of their numbers, and those that are merged into one of them.

    Raises:
        InputError: if a Parquet file there is no part of a store.
    """
    found = [_named(path) for path in folder.glob("*.parquet")]
    found.sort(key=lambda part: (part.first, -part.last, part.digest))  # what is merged before what it was merged from
    counting: list[Part] = []
    merged: list[Part] = []
    for part in found:
        (merged if counting and part.within(counting[-1]) else counting).append(part)
    return counting, merged


def write_part(folder: Path, records: pl.DataFrame, first: int, last: int) -> Path:
    """Write records (columns ``RECORD``), whole or not at all."""
    buffer = io.BytesIO()
    records.write_parquet(buffer)
    content = buffer.getvalue()
    path = folder / f"{first:06d}-{last:06d}-{_digest(content)}.parquet"
    with atomic_file(path) as partial:
        partial.write_bytes(content)
    return path


def read_part(part: Part, columns: Sequence[str]) -> pl.DataFrame:
    """Some columns of a part. Its bytes are compared with its name first: nothing damaged is ever parsed.

    Raises:
        FileNotFoundError: if it was merged into another since it was listed.
        InputError: naming the file if it is damaged.
    """
    try:
        content = part.path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{part.path}: a file of the store that cannot be read: {error.strerror}") from error
    if _digest(content) != part.digest:
        raise InputError(
            f"{part.path}: a damaged file in the store, its bytes are not those that were written: delete it, and "
            "the same command makes the draws again that it held"
        )
    return pl.read_parquet(io.BytesIO(content), columns=list(columns))


def merge_parts(folder: Path) -> None:
    """Make few files of many small ones, one full file at a time; remove what an earlier merge left.

    Whoever calls must be the only one to add to the folder meanwhile. Readers may be there.

    Raises:
        InputError: if a file is damaged.
    """
    parts, merged = list_parts(folder)
    for part in merged:
        part.path.unlink(missing_ok=True)
    small = [part.path.stat().st_size < FULL // 2 for part in parts]
    if sum(small) <= MANY:
        return
    for group in _groups(zip(parts, small, strict=True)):
        frames = [read_part(part, list(RECORD)) for part in group]
        write_part(folder, pl.concat(frames), group[0].first, group[-1].last)
        for part in group:
            part.path.unlink(missing_ok=True)


def _groups(parts: Iterable[tuple[Part, bool]]) -> Iterator[list[Part]]:
    """Runs of small parts, neighbours by number, each run up to where it fills a file."""
    group: list[Part] = []
    size = 0
    for part, small in parts:
        if not small or size >= FULL:
            if len(group) > 1:
                yield group
            group, size = [], 0
        if small:
            group.append(part)
            size += part.path.stat().st_size
    if len(group) > 1:
        yield group


def _named(path: Path) -> Part:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise InputError(f"{path}: not a file of this store: delete it or choose another --store")
    first, last, digest = match.groups()
    return Part(int(first), int(last), digest, path)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
