"""Measurements of candidates side by side: the same facts and items in every column. Takes tables, gives numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from knowshift.measure.bootstrap import Floats


@dataclass(frozen=True)
class Scores:
    """What candidates scored, the base and the tuned model among them.

    Attributes:
        names: of the columns.
        knowledge: (facts, names) 1 where the fact was answered, else 0.
        task: (items, names) scores by the task's metric.
        knowledge_log_prob, task_log_prob: of the same shapes; log-probability of the preferred answer in nats a token.
        binary: whether the task's scores are right or wrong.
    """

    names: tuple[str, ...]
    knowledge: Floats
    task: Floats
    knowledge_log_prob: Floats
    task_log_prob: Floats
    binary: bool

    def place(self, name: str) -> int:
        """The column of ``name``."""
        return self.names.index(name)


def side_by_side(tables: Mapping[str, pl.DataFrame]) -> Scores:
    """The tables of ``Objective.measure`` by the candidate's name, as columns.

    Raises:
        ValueError: if they do not hold the same facts and items, or lack one of the two kinds.
    """
    rows = {name: table.sort("kind", "id") for name, table in tables.items()}
    first = next(iter(rows.values()))
    for name, table in rows.items():
        if not table.select("kind", "id").equals(first.select("kind", "id")):
            raise ValueError(f"{name!r} was measured on other facts or items than {next(iter(rows))!r}")
    found = {}
    for kind in ("knowledge", "task"):
        own = [table.filter(pl.col("kind") == kind) for table in rows.values()]
        if own[0].is_empty():
            raise ValueError(f"nothing was measured of {kind}")
        for column in ("score", "log_prob"):
            found[kind, column] = np.stack([table[column].to_numpy() for table in own], axis=1)
    return Scores(
        tuple(rows),
        found["knowledge", "score"],
        found["task", "score"],
        found["knowledge", "log_prob"],
        found["task", "log_prob"],
        first.filter(pl.col("kind") == "task")["right"].null_count() == 0,
    )
