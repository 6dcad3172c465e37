"""What a study's cells measured, read from their Parquet files: panels of answers and drift, and tables of weights.

A cell that is not done is not read; a cell whose file cannot be read counts as failed from here on, and says why in
``index``. Knows where cells keep what; not what is made of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from knowshift.measure.bootstrap import RESAMPLES
from knowshift.measure.strata import level_column
from knowshift.study.index import LABELS
from knowshift.study.index import read as read_index
from knowshift.study.panel import Panel

ANSWERED = ("contains", "strict", "in_format")
KL = "kl_tuned_base"
# What tells one model in memory from another; of a model as it was trained the first is null.
RESTORED: dict[str, Any] = {
    "restoration": pl.String,
    "setting": pl.String,
    "fraction": pl.Float64,
    "alpha": pl.Float64,
    "removed_norm_share": pl.Float64,
}
TOLD: dict[str, Any] = {"key": pl.String, "kind": pl.String, **LABELS, **RESTORED}
_CONCENTRATION = ("fraction", "share", "null_share", "energy_share", "paper")
_SWEPT = ("method", "setting", "fraction", "alpha", "removed_norm_share")
_MODULES = ("layer", "module", "parameters", "changed")


@dataclass(frozen=True)
class Measures:
    """What was measured.

    Attributes:
        index: every cell the plan asks for, as ``study.index`` gives it.
        answers: by base model and split, facts by models: contains, strict, in_format.
        drift: by base model and mode, facts by models: kl_tuned_base, in nats.
        concentration: a row a model and fraction: share of the summed change, null_share, energy_share, and whether
            the fraction is one of the plan's.
        modules: a row a model, layer, module and fraction: parameters, changed, restored_share, enrichment.
    """

    index: pl.DataFrame
    answers: dict[tuple[str, str], Panel]
    drift: dict[tuple[str, str], Panel]
    concentration: pl.DataFrame
    modules: pl.DataFrame

    @property
    def models(self) -> list[str]:
        """The base models, in the plan's order."""
        return self.index["model"].drop_nulls().unique(maintain_order=True).to_list()


class Unreadable(Exception):
    """A cell that is done, but cannot be read; says why."""


def read(out: Path, *, seed: int = 0, resamples: int = RESAMPLES) -> Measures:
    """Read a study's folder.

    Args:
        out: the folder.
        seed, resamples: of the intervals.

    Raises:
        InputError: if it is none.
    """
    return gather(read_index(out), lambda folder, name: _parquet(out / folder / name), seed=seed, resamples=resamples)


def gather(
    index: pl.DataFrame, load: Callable[[str, str], pl.DataFrame], *, seed: int = 0, resamples: int = RESAMPLES
) -> Measures:
    """The same with the index at hand.

    Args:
        load: a cell's table by the cell's folder and the file's name; ``Unreadable`` if there is none to be had.
    """
    answers: dict[tuple[str, str], _Parts] = {}
    drift: dict[tuple[str, str], _Parts] = {}
    tables: dict[str, list[pl.DataFrame]] = {"concentration": [], "modules": []}
    broken: dict[str, str] = {}
    for row in index.filter(state="done").iter_rows(named=True):
        folder = row["folder"]
        told = {name: row[name] for name in ("key", "kind", *LABELS)}
        try:
            if row["kind"] in ("eval", "sweep", "confirm"):
                table = _table(load, folder, "answers.parquet", ("id", "domain", "level", *ANSWERED))
                answers.setdefault((row["model"], row["split"]), _Parts(ANSWERED)).add(table, told)
            elif row["kind"] == "drift":
                table = _table(load, folder, "drift.parquet", ("id", "domain", "level", KL))
                drift.setdefault((row["model"], row["mode"]), _Parts((KL,))).add(table, told)
            elif row["kind"] == "diff":
                concentration = _table(load, folder, "concentration.parquet", _CONCENTRATION).select(_CONCENTRATION)
                modules = _by_fraction(_table(load, folder, "modules.parquet", _MODULES))
                tables["concentration"].append(_labelled(concentration, told))
                tables["modules"].append(_labelled(modules, told))
        except Unreadable as error:
            broken[row["key"]] = str(error)
    return Measures(
        _failed(index, broken),
        {name: parts.panel(seed, resamples) for name, parts in answers.items() if parts},
        {name: parts.panel(seed, resamples) for name, parts in drift.items() if parts},
        _joined(tables["concentration"]),
        _joined(tables["modules"]),
    )


class _Parts:
    """Columns of a panel, as they come in."""

    def __init__(self, measures: Sequence[str]) -> None:
        self._measures = measures
        self._facts: pl.DataFrame | None = None
        self._told: list[dict[str, Any]] = []
        self._values: dict[str, list[np.ndarray[Any, Any]]] = {measure: [] for measure in measures}

    def __bool__(self) -> bool:
        return bool(self._told)

    def add(self, table: pl.DataFrame, told: dict[str, Any]) -> None:
        """The models that one cell asked: one, or in a sweep one for each method and fraction."""
        swept = [name for name in _SWEPT if name in table.columns]
        parts = table.partition_by(swept, maintain_order=True) if "method" in swept else [table]
        if self._facts is None:
            levels = parts[0]["level"]
            self._facts = parts[0].select("id", "domain").with_columns(level=levels).sort("id")
        if table["level"].null_count() < table.height and self._facts["level"].null_count() == self._facts.height:
            known = dict(parts[0].select("id", "level").iter_rows())
            self._facts = self._facts.with_columns(level_column(self._facts["id"].to_list(), known))
        rows = [part.sort("id") for part in parts]
        for part in rows:
            if not part["id"].equals(self._facts["id"]):
                raise Unreadable("other facts were asked than by the cells before")
            if any(part[measure].null_count() for measure in self._measures):
                raise Unreadable("there are facts without a value")
        for part in rows:
            self._told.append({**dict.fromkeys(RESTORED), **told, **_restored(part, swept)})
            for measure in self._measures:
                self._values[measure].append(part[measure].to_numpy())

    def panel(self, seed: int, resamples: int) -> Panel:
        """The columns side by side; `place` of a model is its column."""
        assert self._facts is not None
        models = pl.DataFrame(self._told, schema=TOLD).with_row_index("place")
        values = {measure: np.stack(columns, axis=1) for measure, columns in self._values.items()}
        return Panel(self._facts, models, values, seed=seed, resamples=resamples)


def _restored(part: pl.DataFrame, swept: Sequence[str]) -> dict[str, Any]:
    """What a model of a sweep is; with nothing put back it is the model as it was trained."""
    if "method" not in swept:
        return {}
    first = part.row(0, named=True)
    if first.get("fraction") == 0:
        return {"fraction": 0.0, "removed_norm_share": 0.0}
    named = {name: first[name] for name in swept if name != "method"}
    return {"restoration": first["method"], **named, "setting": named.get("setting") or None}


def _table(load: Callable[[str, str], pl.DataFrame], folder: str, name: str, needed: Sequence[str]) -> pl.DataFrame:
    table = load(folder, name)
    if missing := [column for column in needed if column not in table.columns]:
        raise Unreadable(f"{name} lacks the columns {', '.join(missing)}")
    if table.is_empty():
        raise Unreadable(f"{name} is empty")
    return table


def _parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise Unreadable(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from error


def _by_fraction(modules: pl.DataFrame) -> pl.DataFrame:
    """One row a place and fraction, of columns such as restored_share_0.2."""
    prefix = "restored_share_"
    fractions = [name.removeprefix(prefix) for name in modules.columns if name.startswith(prefix)]
    return pl.concat(
        [
            modules.select(
                *_MODULES,
                pl.lit(float(fraction)).alias("fraction"),
                restored_share=f"{prefix}{fraction}",
                enrichment=f"enrichment_{fraction}",
            )
            for fraction in fractions
        ]
    )


def _labelled(table: pl.DataFrame, told: dict[str, Any]) -> pl.DataFrame:
    return table.select(*(pl.lit(value, dtype=TOLD[name]).alias(name) for name, value in told.items()), pl.all())


def _joined(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(tables, how="vertical_relaxed") if tables else pl.DataFrame()


def _failed(index: pl.DataFrame, broken: dict[str, str]) -> pl.DataFrame:
    found = pl.col("key").is_in(list(broken))
    said = pl.col("key").replace_strict(broken, default=None, return_dtype=pl.String)
    return index.with_columns(
        state=pl.when(found).then(pl.lit("failed")).otherwise("state"),
        error=pl.when(found).then(said).otherwise("error"),
    )
