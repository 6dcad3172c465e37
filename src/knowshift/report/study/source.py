"""The tables that a study exported, of one study or of several side by side: all that its page is made from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from knowshift.errors import InputError
from knowshift.study.export import FOLDER, LISTED, read
from knowshift.study.index import GRID
from knowshift.study.tables.table import Table

Named = tuple[str | None, str | None]  # study, base model


@dataclass(frozen=True)
class Source:
    """Tables of studies.

    Attributes:
        names: what each study is called; one name for a study alone.
        tables: by name; of several studies each row has its column `study`.
        subjects: what is called what, by study and base model: empty for one study of one model.
    """

    names: tuple[str, ...]
    tables: dict[str, Table]
    subjects: dict[Named, str]

    def subject(self, study: str | None, model: str | None) -> str:
        """What a row speaks of; nothing where all rows speak of the same."""
        return self.subjects.get((study, model), "")


def has_cells(folder: Path) -> bool:
    """Whether a folder is that of a study's cells, from which its tables can be made."""
    return (folder / GRID).is_file()


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study's tables."""
    return (folder / FOLDER / LISTED).is_file()


def open_studies(folders: Sequence[Path]) -> Source:
    """Read what studies exported.

    Raises:
        InputError: if one exported nothing, or a table of it cannot be read.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        if not is_study(folder):
            raise InputError(f"{folder}: no study's tables (it has no {FOLDER}/{LISTED})")
    names = _told_apart([folder.resolve() for folder in folders])
    read_ = [_short_models(read(folder / FOLDER)) for folder in folders]
    tables = read_[0] if len(read_) == 1 else _side_by_side(names, read_)
    return Source(tuple(names), tables, _subjects(tables))


def _told_apart(folders: Sequence[Path]) -> list[str]:
    """Each folder's own name, with as many of its parents as tell it from the others."""
    if len(set(folders)) < len(folders):
        raise InputError(f"{folders[0]}: a study is not compared with itself")
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def _short_models(tables: dict[str, Table]) -> dict[str, Table]:
    """Of a model that is a folder its own name, where that names one model."""
    models = {model for table in tables.values() if "model" in table.frame.columns for model in table.frame["model"]}
    short = {model: Path(model).name if Path(model).is_absolute() else model for model in models if model}
    if len(set(short.values())) < len(short):
        return tables
    return {
        name: replace(table, frame=table.frame.with_columns(pl.col("model").replace(short)))
        if "model" in table.frame.columns
        else table
        for name, table in tables.items()
    }


def _side_by_side(names: Sequence[str], each: Sequence[dict[str, Table]]) -> dict[str, Table]:
    """Every table that any study has, its rows one study after the other."""
    found: dict[str, Table] = {}
    for name in dict.fromkeys(name for tables in each for name in tables):
        having = [(study, tables[name]) for study, tables in zip(names, each, strict=True) if name in tables]
        frames = [table.frame.select(pl.lit(study).alias("study"), pl.all()) for study, table in having]
        notes = dict.fromkeys(note for _, table in having for note in table.notes)
        found[name] = replace(
            having[0][1],
            frame=pl.concat(frames, how="diagonal_relaxed"),
            notes=tuple(notes),
            command=f"{having[0][1].command}  # of each",
        )
    return found


def _subjects(tables: dict[str, Table]) -> dict[Named, str]:
    """What tells the base models of all studies from each other."""
    pairs = dict.fromkeys(
        (study, model)
        for table in tables.values()
        if "model" in table.frame.columns
        for study, model in table.frame.select(
            pl.col("study") if "study" in table.frame.columns else pl.lit(None).alias("study"), "model"
        )
        .unique(maintain_order=True)
        .iter_rows()
        if model is not None
    )
    studies, models = ({pair[place] for pair in pairs} for place in (0, 1))
    if len(pairs) == 1:
        return {}
    if len(studies) == 1:
        return {pair: str(pair[1]) for pair in pairs}
    if len(pairs) == len(studies):
        # Two studies of one model each: the model's name says more than a folder's, where it tells them apart.
        return {pair: str(pair[0]) if len(models) == 1 else f"{pair[1]} ({pair[0]})" for pair in pairs}
    return {pair: f"{pair[1]} ({pair[0]})" for pair in pairs}
