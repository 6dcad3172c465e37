"""Which rows of a table of facts count in a mean over levels, and in which stratum.

A fact without a level has no stratum in a domain where others have one, so it is left out there. In a domain
where no fact has a level, all facts are one stratum and the mean over levels is the plain mean.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from knowshift.facts.fact import DOMAINS
from knowshift.mastery.levels import LEVELS

UNSCORED = -1


def with_strata(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of ``table`` (columns domain, level) that count, with their ``stratum``: the level, or -1."""
    scored = pl.col("level").is_not_null()
    return table.with_columns(stratum=pl.col("level").cast(pl.Int64).fill_null(UNSCORED)).filter(
        scored | ~scored.any().over("domain")
    )


def domains(table: pl.DataFrame) -> list[str]:
    """The domains that have facts, in-domain first."""
    present = set(table["domain"].to_list())
    return [domain for domain in DOMAINS if domain in present]


def missing_levels(table: pl.DataFrame) -> list[int]:
    """Levels without a fact in ``table``; none are missing where nothing has a level."""
    present = set(table["level"].drop_nulls().to_list())
    return [level for level in LEVELS if level not in present] if present else []


def level_column(ids: Sequence[str], levels: Mapping[str, int] | None) -> pl.Series:
    """The level of each fact, null where it has none."""
    known = levels or {}
    return pl.Series("level", [known.get(identity) for identity in ids], dtype=pl.Int8)
