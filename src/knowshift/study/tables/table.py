"""A table of a study: rows told by the plan's labels, each a mean over seeds and facts or the word that it is missing.

What the plan asks for has a row whether or not it is done; a mean over fewer seeds than asked says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from knowshift.measure.bootstrap import Estimate
from knowshift.study.crossed import Crossed, over_seeds
from knowshift.study.panel import Panel

COMMAND = "knowshift report DIR"
# What tells one trained model from another, but for its seed.
CONFIG: dict[str, Any] = {
    "model": pl.String,
    "role": pl.String,
    "method": pl.String,
    "level": pl.Int64,
    "mix": pl.String,
    "asked_size": pl.String,
    "size": pl.Int64,
    "form": pl.String,
}
# value, low, high: mean and 95 % interval over facts and seeds; spread: standard deviation over seeds' means; seeds:
# of asked_seeds; state: complete, partial or missing; why: what is lacking.
FIGURES: dict[str, Any] = {
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "spread": pl.Float64,
    "seeds": pl.Int64,
    "asked_seeds": pl.Int64,
    "state": pl.String,
    "why": pl.String,
}
EXACT = 1e-9  # two spellings of one fraction are nearer than that


@dataclass(frozen=True)
class Table:
    """A table in long form.

    Attributes:
        name: of its files.
        title: what a reader sees above it.
        frame: the rows.
        across: the column whose values stand side by side where the table is printed; None for a long one.
        beside: columns that are left out where values stand side by side: they tell no row, and vary along it.
        unit: of the values: `share`, `nats`, `ratio` or `number`.
        notes: what a reader must know.
        command: what makes it from a study's folder DIR.
    """

    name: str
    title: str
    frame: pl.DataFrame
    across: str | None = None
    beside: tuple[str, ...] = ()
    unit: str = "share"
    notes: tuple[str, ...] = ()
    command: str = COMMAND


@dataclass(frozen=True)
class Config:
    """One row of the plan: a model but for its seed, and the cells of its seeds.

    Attributes:
        labels: the columns of ``CONFIG``.
        cells: key, seed, state and error of each seed's cell; the base model's one cell has no seed.
        lacking: why there can be none.
    """

    labels: Mapping[str, Any]
    cells: Sequence[Mapping[str, Any]] = field(default_factory=list)
    lacking: str | None = None

    @property
    def done(self) -> list[str]:
        """Keys of the cells that are done, by seed."""
        return [cell["key"] for cell in self.cells if cell["state"] == "done"]

    @property
    def seeds(self) -> dict[int | None, str]:
        """The same by seed."""
        return {cell["seed"]: cell["key"] for cell in self.cells if cell["state"] == "done"}

    def standing(self, seeds: int) -> dict[str, Any]:
        """The columns that say what is lacking, of a mean over so many seeds."""
        asked = len(self.cells)
        state = "missing" if not seeds else "complete" if seeds == asked else "partial"
        return {"seeds": seeds, "asked_seeds": asked, "state": state, "why": self.lacking or self._why()}

    def _why(self) -> str | None:
        said = [
            f"seed {cell['seed']} {cell['state']}" + (f": {cell['error']}" if cell["error"] else "")
            for cell in self.cells
            if cell["state"] != "done"
        ]
        return "; ".join(said) or None


def configs(index: pl.DataFrame, kind: str, *, lacking: bool = True, **where: Any) -> list[Config]:
    """What the plan asks for of one kind of cell, in its order; sets that there cannot be after their like.

    Args:
        index: as ``study.index`` gives it.
        kind: of cells.
        lacking: also sets that there cannot be.
        where: labels that the cells must have.
    """
    cells = index.filter(pl.col("kind") == kind, pl.col("state") != "missing", **where)
    found = [
        Config(
            dict(zip(CONFIG, labels, strict=True)),
            part.sort("seed").select("key", "seed", "state", "error").to_dicts(),
        )
        for labels, part in cells.group_by(*CONFIG, maintain_order=True)
    ]
    model = {"model": where["model"]} if "model" in where else {}
    gone = index.filter(pl.col("kind").is_in([kind, "train"]), pl.col("state") == "missing", **model)
    if lacking and where.get("role") in (None, "tuned"):
        found += [
            Config({name: row[name] for name in CONFIG}, lacking=row["error"] or "missing")
            for row in gone.iter_rows(named=True)
        ]
    return sorted(found, key=lambda config: _order(config.labels))


def _order(labels: Mapping[str, Any]) -> tuple[Any, ...]:
    roles = ("base", "instruct", "tuned")
    level, size = labels["level"], labels["size"]
    asked = str(labels["asked_size"] or "")
    planned = size if size is not None else int(asked) if asked.isdecimal() else 1 << 62
    return roles.index(labels["role"] or "tuned"), 9 if level is None else level, str(labels["mix"]), planned


class Places:
    """Where a cell's models stand in a panel."""

    def __init__(self, panel: Panel) -> None:
        self._places: dict[tuple[Any, ...], int] = {}
        for row in panel.models.iter_rows(named=True):
            self._places.setdefault(
                _told(row["key"], row["restoration"], row["setting"], row["fraction"]), row["place"]
            )

    def of(
        self,
        keys: Sequence[str],
        restoration: str | None = None,
        setting: str | None = None,
        fraction: float | None = None,
    ) -> list[int] | None:
        """The place of one model of each cell; None if a cell has no such model, or there is no cell."""
        found = [self._places.get(_told(key, restoration, setting, fraction)) for key in keys]
        known = [place for place in found if place is not None]
        return known if found and len(known) == len(found) else None


def _told(key: str, restoration: str | None, setting: str | None, fraction: float | None) -> tuple[Any, ...]:
    # A model as it was trained is the same whether its cell calls it that or puts nothing back.
    return key, restoration, setting, None if restoration is None or fraction is None else round(fraction, 9)


def means(
    panel: Panel,
    rows: Sequence[tuple[Config, dict[str, Any], list[int] | None, list[int] | None]],
    measure: str,
    domain: str,
    level: int | None = None,
) -> list[dict[str, Any]]:
    """Rows of a table: each a configuration, what else tells the row, and where its models stand.

    Args:
        panel: of all.
        rows: configuration, further columns, places of its models by seed (None: missing), and of those that are
            taken from them (None: nothing is).
        measure, domain, level: as ``Panel.means`` takes them.
    """
    known = [row for row in rows if row[2]]
    plain = [row for row in known if row[3] is None]
    paired = [row for row in known if row[3] is not None]
    found: dict[int, Crossed] = {}
    if plain:
        asked = panel.means(measure, [row[2] or [] for row in plain], domain, level)
        found |= {id(row): one for row, one in zip(plain, asked, strict=True)}
    if paired:
        wanted, against = [row[2] or [] for row in paired], [row[3] or [] for row in paired]
        asked = panel.means(measure, wanted, domain, level, against=against)
        found |= {id(row): one for row, one in zip(paired, asked, strict=True)}
    return [{**row[0].labels, **row[1], **figures(row[0], found.get(id(row)))} for row in rows]


def seed_means(
    rows: Sequence[tuple[Config, dict[str, Any]]], values: Callable[[Config, dict[str, Any]], Sequence[float]]
) -> list[dict[str, Any]]:
    """Rows of a table of one number a seed."""
    found = []
    for config, told in rows:
        each = values(config, told)
        found.append({**config.labels, **told, **figures(config, over_seeds(each) if len(each) else None)})
    return found


def figures(config: Config, mean: Crossed | None) -> dict[str, Any]:
    """The columns of ``FIGURES``."""
    if mean is None:
        return {**dict.fromkeys(("value", "low", "high", "spread")), **config.standing(0)}
    own = Estimate(mean.value, mean.low, mean.high).to_json()
    return {**own, "spread": mean.spread, **config.standing(mean.seeds)}


def frame(rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> pl.DataFrame:
    """The rows with the columns of ``CONFIG``, ``told`` and ``FIGURES``."""
    schema = {**CONFIG, **told, **FIGURES}
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
