"""Write a table that is larger than memory: frames as they come, one Parquet file, whole or not at all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from knowshift.files import atomic_file

ROW_GROUP = 1 << 14


def write_stream(path: Path, frames: Iterator[pl.DataFrame], schema: dict[str, Any]) -> None:
    """Write ``frames``, all of ``schema``, below each other. Equal rows give equal bytes, however they are cut."""

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, batch: int | None
    ) -> Iterator[pl.DataFrame]:
        """The engine of polars may ask for a part of a table; a plain write asks for all of it."""
        if predicate is not None or rows is not None:
            raise NotImplementedError("a stream is written whole")
        yield from frames if columns is None else (frame.select(columns) for frame in frames)

    with atomic_file(path) as partial:
        register_io_source(source, schema=schema).sink_parquet(partial, row_group_size=ROW_GROUP)
