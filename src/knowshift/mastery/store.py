"""What a model has said already: verdicts of numbered draws, kept so that nothing is drawn twice.

A store is a folder with one folder in it for each way to sample (model, engine, temperature, length, seed);
there, Parquet files (``parts.py``) hold one record for each prompt and span of its draws. A file is written whole
and never changed, so a killed run leaves nothing half done and several processes may share a store. Knows keys, spans
and verdicts; not facts, prompts or models.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from filelock import FileLock

from knowshift.errors import InputError
from knowshift.files import digest_of, make_folder, read_json, write_json
from knowshift.mastery.parts import RECORD, TEXT_COLUMNS, Part, list_parts, merge_parts, read_part, write_part

# To be raised when a stored verdict comes to mean something else: old records are then passed over.
FORMAT = 2

LOCK = "lock"
# A file may be merged into another between being listed and being read; so often in a row it is not.
TRIES = 5


class Span(NamedTuple):
    """Draws that one prompt lacks: numbers ``first`` to ``first + samples - 1``, and whether the greedy one too."""

    first: int
    samples: int
    greedy: bool


class _Index(NamedTuple):
    """Where each record is, sorted by key, then by first draw, then by place: 33 bytes a record."""

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    first: npt.NDArray[np.int32]
    draws: npt.NDArray[np.int32]
    greedy: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.bool_]
    part: npt.NDArray[np.uint32]
    row: npt.NDArray[np.uint32]


class Store:
    """The records of one way to sample, as they were when it was opened.

    Attributes:
        folder: where they are.
        rows: how many continuations are decoded together by whoever adds to them.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder
        self.rows = rows
        self._list()

    @classmethod
    def open(cls, root: Path, way: Mapping[str, Any], *, fitted: int, rows: int | None = None) -> "Store":
        """Open the part of the store ``root`` that belongs to one way to sample; begin it if there is none.

        Args:
            root: the store.
            way: all that decides what a key's draws are.
            fitted: rows to begin with. A store that exists goes on with those it was begun with, since what is
                decoded together shows in the last bits: so an interrupted run ends as an undisturbed one would.
            rows: rows asked for, from now on.

        Raises:
            InputError: if a file is damaged, or changes while it is read.
        """
        way = {"format": FORMAT, **way}
        folder = make_folder(root / digest_of(way))
        note = folder / "way.json"
        with FileLock(folder / LOCK):
            begun = _rows_begun_with(note)
            chosen = rows or begun or fitted
            if chosen != begun:
                write_json(note, {**way, "rows": chosen})
            merge_parts(folder)
        return cls(folder, chosen)

    def lacking(self, keys: npt.NDArray[np.uint64], samples: int, *, greedy: bool, texts: bool) -> list[Span | None]:
        """What each prompt lacks of its first ``samples`` draws; None where it lacks nothing.

        With ``texts`` only draws whose text was kept count: the others are drawn again.
        """
        index = self._index
        covered = np.zeros(len(keys), np.int64)
        known = np.zeros(len(keys), np.bool_)
        for prompt, entry in self._entries(keys):
            known[prompt] |= index.greedy[entry]
            if index.first[entry] <= covered[prompt] and (index.kept[entry] or not texts):
                covered[prompt] = max(covered[prompt], int(index.first[entry]) + int(index.draws[entry]))
        return [
            _span(have, samples, greedy and not asked)
            for have, asked in zip(covered.tolist(), known.tolist(), strict=True)
        ]

    def read(self, keys: npt.NDArray[np.uint64], *, texts: bool) -> pl.DataFrame:
        """The records of ``keys``: columns ``prompt`` (its place in ``keys``) and ``RECORD`` without the key.

        Sorted by prompt, first draw and place. Without ``texts`` the columns of the texts are left out.
        """
        for _ in range(TRIES):
            try:
                return self._read(keys, texts)
            except FileNotFoundError:
                self._list()
        raise self._unsteady()

    def add(self, records: pl.DataFrame) -> None:
        """Write records (columns ``RECORD``), whole or not at all. They are seen when the store is opened again."""
        with FileLock(self.folder / LOCK):
            parts, _ = list_parts(self.folder)
            number = parts[-1].last + 1 if parts else 1
            write_part(self.folder, records, number, number)

    def _list(self) -> None:
        for _ in range(TRIES):
            self._parts, _ = list_parts(self.folder)
            try:
                self._index = _read_index(self._parts)
                return
            except FileNotFoundError:
                continue
        raise self._unsteady()

    def _unsteady(self) -> InputError:
        return InputError(f"{self.folder}: the store changes while it is read: run the same command again")

    def _read(self, keys: npt.NDArray[np.uint64], texts: bool) -> pl.DataFrame:
        index = self._index
        found = list(self._entries(keys))
        prompts = np.array([prompt for prompt, _ in found], np.int64)
        entries = np.array([entry for _, entry in found], np.int64)
        columns = [name for name in RECORD if name not in ("high", "low") and (texts or name not in TEXT_COLUMNS)]
        frames = [pl.DataFrame(schema={"place": pl.Int64} | {name: RECORD[name] for name in columns})]
        for part in np.unique(index.part[entries]).tolist():
            places = np.flatnonzero(index.part[entries] == part)
            rows = read_part(self._parts[part], columns)[index.row[entries[places]].tolist()]
            frames.append(rows.insert_column(0, pl.Series("place", places, pl.Int64)))
        together = pl.concat(frames).sort("place")
        return together.select(pl.Series("prompt", prompts, pl.Int64), *columns)

    def _entries(self, keys: npt.NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
        """Pairs (place in ``keys``, place in the index), in the order of both."""
        index = self._index
        left = np.searchsorted(index.high, keys[:, 0], "left")
        right = np.searchsorted(index.high, keys[:, 0], "right")
        for prompt in np.flatnonzero(right > left).tolist():
            for entry in range(int(left[prompt]), int(right[prompt])):
                if index.low[entry] == keys[prompt, 1]:
                    yield prompt, entry


def _rows_begun_with(note: Path) -> int | None:
    if not note.exists():
        return None
    content = read_json(note)
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, int) or rows < 1:
        raise InputError(f'{note}: a damaged file in the store: no "rows" of at least 1: delete it')
    return rows


def _span(have: int, samples: int, greedy: bool) -> Span | None:
    if have < samples:
        return Span(have, samples - have, greedy)
    # Engines draw at least once: where the greedy continuation alone is lacking, one more draw comes with it.
    return Span(have, 1, greedy) if greedy else None


def _read_index(parts: Sequence[Part]) -> _Index:
    columns = ["high", "low", "first", "count", "greedy", "kept"]
    pieces = [_index_of(pl.DataFrame(schema={name: RECORD[name] for name in columns}), 0)]
    pieces += [_index_of(read_part(part, columns), number) for number, part in enumerate(parts)]
    loose = [list(column) for column in zip(*pieces, strict=True)]
    del pieces
    together = [np.concatenate(loose.pop(0)) for _ in _Index._fields]  # one column at a time: memory stays flat
    order = np.lexsort((together[2], together[1], together[0]))  # stable: equal ones stay in the order of the files
    for place, column in enumerate(together):
        together[place] = column[order]
    return _Index(*together)


def _index_of(frame: pl.DataFrame, part: int) -> _Index:
    """One file's share of the index, as arrays of their own: the frame's memory can go."""
    return _Index(
        high=frame["high"].to_numpy().copy(),
        low=frame["low"].to_numpy().copy(),
        first=frame["first"].to_numpy().copy(),
        draws=frame["count"].to_numpy().copy(),
        greedy=frame["greedy"].is_not_null().to_numpy(),
        kept=frame["kept"].to_numpy(),
        part=np.full(frame.height, part, np.uint32),
        row=np.arange(frame.height, dtype=np.uint32),
    )
