"""A study's tables, from the Parquet files of its cells."""

from knowshift.study.measures import Measures
from knowshift.study.tables.accuracy import accuracy, by_size, transitions
from knowshift.study.tables.drift import against_accuracy, drift
from knowshift.study.tables.restoration import confirmed, parts, restoration
from knowshift.study.tables.strategies import strategies
from knowshift.study.tables.table import COMMAND, Table
from knowshift.study.tables.weights import concentration, layers, modules

__all__ = ["COMMAND", "Table", "build"]


def build(measures: Measures) -> dict[str, Table]:
    """Every table by its name, in the order of the story."""
    answered, moved = accuracy(measures), drift(measures)
    tables = [
        answered,
        by_size(answered),
        transitions(measures),
        strategies(measures),
        restoration(measures),
        confirmed(measures),
        parts(measures),
        moved,
        against_accuracy(moved, answered),
        concentration(measures),
        modules(measures),
        layers(measures),
    ]
    return {table.name: table for table in tables}
