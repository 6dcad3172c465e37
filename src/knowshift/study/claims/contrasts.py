"""Differences between groups of trained models, seed by seed and fact by fact; which models there are to compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

import numpy as np
import polars as pl

from knowshift.study.crossed import Crossed
from knowshift.study.measures import Measures
from knowshift.study.panel import BOTH, Panel
from knowshift.study.tables.table import Config, configs

ABOUT = 240  # the size at which the paper sees the turn
FACTOR = 2.0  # a size this many times smaller or larger is not about the same
PLAIN = "sft"

# Where a configuration's model stands, by seed.
Where = Callable[[Config], Mapping[int | None, int]]


@dataclass(frozen=True)
class Grid:
    """Configurations of one training method by level and asked size; those that there cannot be, with the reason."""

    by: Mapping[tuple[int, str], Config]
    lacking: Mapping[tuple[int, str], str] = field(default_factory=dict)

    @property
    def levels(self) -> list[int]:
        """Levels with any model."""
        return sorted({level for level, _ in self.by})

    def sizes(self, level: int) -> dict[str, int]:
        """Facts trained on at a level, by the size as asked, rising."""
        found = {asked: config.labels["size"] for (own, asked), config in self.by.items() if own == level}
        return dict(sorted(((asked, size) for asked, size in found.items() if size), key=lambda pair: pair[1]))

    def about(self, level: int) -> str | None:
        """The asked size that trains on about as many facts as the paper's turn; None if none does."""
        near = {asked: abs(log(size / ABOUT)) for asked, size in self.sizes(level).items()}
        best = min(near, key=lambda asked: near[asked], default=None)
        return best if best is not None and near[best] < log(FACTOR) else None

    def smallest(self, level: int) -> str | None:
        """The smallest asked size, if it is well below the turn."""
        return next((asked for asked, size in self.sizes(level).items() if size <= ABOUT / FACTOR), None)

    def largest(self, level: int) -> str | None:
        """The largest asked size, if it is well above the turn."""
        above = [asked for asked, size in self.sizes(level).items() if size >= ABOUT * FACTOR]
        return above[-1] if above else None

    def shared(self, levels: Sequence[int]) -> str | None:
        """The largest asked size that all these levels have."""
        each = [self.sizes(level) for level in levels]
        common = [asked for asked in each[0] if all(asked in sizes for sizes in each)] if each else []
        return max(common, key=lambda asked: min(sizes[asked] for sizes in each), default=None)

    def why(self, level: int) -> str:
        """Why a level lacks a model."""
        said = [reason for (own, _), reason in self.lacking.items() if own == level]
        return said[0] if said else f"level {level} has no model"


def grid(measures: Measures, kind: str, model: str, method: str, **where: Any) -> Grid:
    """What one method was trained on, of cells of one kind."""
    found = configs(measures.index, kind, model=model, **where)
    own = {
        (one.labels["level"], one.labels["asked_size"]): one
        for one in found
        if one.lacking is None and one.labels["level"] is not None and one.labels["method"] == method
    }
    lacking = {
        (one.labels["level"], one.labels["asked_size"]): one.lacking
        for one in found
        if one.lacking is not None and one.labels["level"] is not None
    }
    return Grid(own, lacking)


def plain(measures: Measures, model: str) -> str | None:
    """The method that stands for plain fine-tuning: sft, or what is trained first."""
    tuned = measures.index.filter(kind="eval", model=model, role="tuned")
    methods = tuned["method"].drop_nulls().unique(maintain_order=True).to_list()
    return PLAIN if PLAIN in methods else next(iter(methods), None)


def trained(panel: Panel) -> Where:
    """Where the models stand as they were trained."""
    return made(panel, None)


def made(panel: Panel, restoration: str | None, setting: str | None = None) -> Where:
    """Where the models stand that put weights back; of several fractions the first."""
    own = panel.models.filter(
        pl.col("restoration").eq_missing(pl.lit(restoration)), pl.col("setting").eq_missing(pl.lit(setting))
    )
    places = dict(reversed(list(own.select("key", "place").iter_rows())))

    def where(config: Config) -> dict[int | None, int]:
        return {seed: places[key] for seed, key in config.seeds.items() if key in places}

    return where


def contrast(
    panel: Panel | None,
    measure: str,
    plus: Sequence[tuple[Config, Where]],
    minus: Sequence[tuple[Config, Where]],
    *,
    domain: str = BOTH,
    level: int | None = None,
) -> tuple[Crossed | None, str | None]:
    """Mean of the models ``plus`` less that of ``minus``, over the seeds for which every one of them is done.

    Returns:
        The difference, None if there is no such seed; and what is lacking, None if nothing is.
    """
    if panel is None or not plus or not minus:
        return None, "nothing measured"
    sides = [[where(config) for config, where in side] for side in (plus, minus)]
    asked = {cell["seed"] for side in (plus, minus) for config, _ in side for cell in config.cells}
    common = sorted(set.intersection(*(set(places) for side in sides for places in side)), key=str)
    said = f"{len(common)} of {len(asked)} seeds have all of these models"
    if not common:
        return None, said
    tables = [
        np.mean([panel.table(measure, [places[seed] for seed in common], domain, level) for places in side], axis=0)
        for side in sides
    ]
    boolean = panel.values[measure].dtype == np.bool_
    (found,) = panel.crossed([tables[0] - tables[1]], domain, level, shares=boolean, signed=True)
    return found, said if len(common) < len(asked) else None
