"""Facts in files that are not JSONL: comma- or tab-separated values, a JSON array, Parquet.

Knows file formats, not what the columns mean. Every row comes with its place in the file: the line it begins on
(``:12``), or its index (``[3]``, the first is 0).
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from knowshift.errors import InputError
from knowshift.facts.columns import KNOWN
from knowshift.facts.fact import Fact, build, decode, read_rows

Rows = Iterator[tuple[str, dict[str, Any]]]


def read_table(path: Path) -> list[Fact]:
    """The facts of a file, its format told by the ending; whatever has no ending of its own here is JSONL.

    ``.csv`` and ``.tsv`` (quoting as in CSV), ``.json`` (an array of objects, or JSON lines), ``.parquet``.

    Raises:
        InputError: naming file and line or row: not of its format, ragged, or not a fact (``columns.fields``).
    """
    rows = _FORMATS.get(path.suffix.casefold(), _json_lines)
    try:
        return build(str(path), rows(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _json_lines(path: Path) -> Rows:
    for number, row in read_rows(path):
        yield f":{number}", row


def _json(path: Path) -> Rows:
    """An array of objects; many also call JSON lines ``.json``."""
    text = _text(path)
    if not text.lstrip().startswith("["):
        yield from _json_lines(path)
        return
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise InputError(f"{path}[{index}]: a JSON object is expected, found {type(item).__name__}")
        yield f"[{index}]", item


def _separated(delimiter: str) -> Callable[[Path], Rows]:
    def rows(path: Path) -> Rows:
        text = _text(path)
        # A field may be as long as the file; the limit belongs to the module, so it is put back.
        before = csv.field_size_limit(max(len(text), 1))
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            yield from _records(path, reader)
        finally:
            csv.field_size_limit(before)

    return rows


def _records(path: Path, reader: Any) -> Rows:
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}:{line}: not valid {path.suffix[1:]} ({error}); is a quote left open?") from error
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [name.strip() for name in cells]
            twice = sorted({name for name in header if name and header.count(name) > 1})
            if twice:
                raise InputError(f"{path}:{line}: the column {twice[0]!r} stands twice in the first line")
        elif len(cells) != len(header):
            raise InputError(f"{path}:{line}: {len(cells)} fields here, {len(header)} in the first line")
        else:
            yield f":{line}", {name: cell for name, cell in zip(header, cells, strict=True) if name}


def _parquet(path: Path) -> Rows:
    import polars as pl

    if not path.is_file():  # polars would take a pattern or a folder of files
        raise FileNotFoundError(path)
    try:
        with path.open("rb") as handle:
            names = [name for name in pl.read_parquet_schema(handle) if name.strip().casefold() in KNOWN]
            table = pl.read_parquet(handle, columns=names) if names else pl.DataFrame()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from error
    if not names:
        raise InputError(f"{path}: no column of facts here (question, answers, ...)")
    for index, row in enumerate(table.iter_rows(named=True)):
        yield f"[{index}]", row


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return decode(raw, f"{path}", start=True)
    except InputError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        line = raw.count(b"\n", 0, error.__cause__.start) + 1
        raise InputError(f"{path}:{line}: not valid UTF-8") from error


_FORMATS: dict[str, Callable[[Path], Rows]] = {
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".json": _json,
    ".parquet": _parquet,
}
