"""Cells that put weights back in memory: the sweep on validation, and what it chose, once, on test.

Only ``confirm`` reads test facts, and it asks no model but those that ``choice.json`` of the sweep lists: the chosen
restoration, its controls at the same fraction or removed norm, the best rival, and the tuned model itself.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from knowshift import steps
from knowshift.facts.fact import Fact
from knowshift.facts.sources import read_facts
from knowshift.files import make_folder, read_json, write_json, write_parquet
from knowshift.measure.accuracy import evaluate, summarise
from knowshift.measure.statistics import micro
from knowshift.models import digest, resolve
from knowshift.progress import bar
from knowshift.runs import record
from knowshift.study.asked import asked_model, facts
from knowshift.study.cell import Task
from knowshift.study.curve import METHODS, Curve, choose

# Which row of an answers table is which: a restoration by method and fraction, a rival by method and setting.
COLUMNS = ("method", "setting", "fraction", "alpha", "removed_norm_share")


class Walk(Curve):
    """The restoration curve, and other methods of merging beside it."""

    def blocks(self, size: int) -> list[str]:
        """The model's layers in blocks of ``size``, as ``merge layers`` names them; the last may be smaller."""
        layers = {pair.place.layer for pair in self._sweep.pairs if pair.place.layer is not None}
        count = max(layers) + 1 if layers else 0
        return [f"{start}-{min(start + size, count) - 1}" for start in range(0, count, size)]

    def rival(
        self,
        method: str,
        settings: Mapping[str, Any],
        facts: Sequence[Fact],
        levels: Mapping[str, int],
        *,
        max_new_tokens: int,
    ) -> pl.DataFrame:
        """The answers of the model that one method of merging makes, with the columns of ``COLUMNS``."""
        with self._sweep.holding(method, **settings) as made:
            table = evaluate(self._engine, facts, max_new_tokens=max_new_tokens, levels=levels)
        return table.with_columns(
            method=pl.lit(method),
            setting=pl.lit(spelled(settings)),
            fraction=pl.lit(None, dtype=pl.Float64),
            alpha=pl.lit(made.alpha, dtype=pl.Float64),
            removed_norm_share=pl.lit(made.removed_norm_share),
        )


def sweep(task: Task, out: Path, folder: Path) -> None:
    """Restoration, controls and rivals on validation; ``choice.json`` says what is worth confirming."""
    options = task.options
    length = options["max_new_tokens"]
    with record(folder, "study sweep", options, seed=options["seed"], models=_digests(task, out)):
        walk = _walk(task, out)
        asked, levels = _facts(task, out, "validation")
        curve = walk.measure(asked, levels, folder, fractions=options["fractions"], max_new_tokens=length)
        walked = [(name, dict(settings)) for name, settings in options["rivals"]]
        candidates = len(walked)
        walked += (
            [("layers", {"layers": block}) for block in walk.blocks(options["layers"])] if options["layers"] else []
        )
        walked += [("modules", {"modules": names}) for names in options["modules"]]
        tables = _each(
            folder / "parts" / "rivals",
            [f"{number}-{name}" for number, (name, _) in enumerate(walked)],
            lambda number: walk.rival(*walked[number], asked, levels, max_new_tokens=length),
        )
        core = pl.read_parquet(folder / "answers.parquet").with_columns(setting=pl.lit(""))
        write_json(folder / "choice.json", chosen(curve, walked[:candidates], tables, seed=options["seed"]))
        write_parquet(folder / "answers.parquet", pl.concat([core, *(table.select(core.columns) for table in tables)]))
    shutil.rmtree(folder / "parts")


def chosen(
    curve: pl.DataFrame, rivals: Sequence[tuple[str, Mapping[str, Any]]], tables: Sequence[pl.DataFrame], *, seed: int
) -> dict[str, Any]:
    """The choice on validation, and under ``asked`` every model that may be asked on test.

    Args:
        curve: as ``Curve.measure`` returns it.
        rivals: the rivals that may be chosen, with their settings.
        tables: the answers of each, in the same order, perhaps with others after them.
    """
    choice = choose(curve)
    fraction = choice["fraction"]
    asked = [{"method": name, "fraction": fraction, "settings": {}} for name in METHODS]
    scores = [micro(table, seed=seed).value for table in tables[: len(rivals)]]
    if scores:
        best = max(range(len(scores)), key=lambda number: (scores[number], -number))
        name, settings = rivals[best]
        asked.append({"method": name, "fraction": None, "settings": dict(settings)})
        choice |= {"rival": name, "rival_setting": spelled(settings), "validation_accuracy_rival": scores[best]}
    return {**choice, "asked": [{"method": METHODS[0], "fraction": 0.0, "settings": {}}, *asked]}


def confirm(task: Task, out: Path, folder: Path) -> None:
    """What the sweep chose, on test; nothing else can be asked here."""
    options = task.options
    choice = read_json(task.input(out, "sweep") / "choice.json")
    with record(folder, "study confirm", options, seed=options["seed"], models=_digests(task, out)):
        confirmation = Confirmation(choice, _walk(task, out), *_facts(task, out, "test"), options["max_new_tokens"])
        tables = _each(
            folder / "parts",
            [f"{number}-{entry['method']}" for number, entry in enumerate(choice["asked"])],
            lambda number: confirmation.ask(choice["asked"][number]),
        )
        answers = pl.concat([table.select(tables[0].columns) for table in tables])
        named = zip(choice["asked"], tables, strict=True)
        metrics = {_title(entry): summarise(table, seed=options["seed"]) for entry, table in named}
        write_parquet(folder / "answers.parquet", answers)
        write_json(folder / "metrics.json", {"choice": choice, "models": metrics})
    shutil.rmtree(folder / "parts")


class Confirmation:
    """Test facts, and the models that may be asked them.

    Args:
        choice: what a sweep chose on validation.
    """

    def __init__(
        self, choice: Mapping[str, Any], walk: Walk, asked: Sequence[Fact], levels: Mapping[str, int], length: int
    ) -> None:
        self._choice, self._walk, self._facts, self._levels, self._length = choice, walk, asked, levels, length

    def ask(self, entry: Mapping[str, Any]) -> pl.DataFrame:
        """The answers of one model that the choice lists.

        Raises:
            PermissionError: for any other model: test facts choose nothing.
        """
        if entry not in self._choice["asked"]:
            raise PermissionError(f"{_title(entry)} was not chosen on validation, so it is not asked on test")
        if entry["fraction"] is None:
            return self._walk.rival(
                entry["method"], entry["settings"], self._facts, self._levels, max_new_tokens=self._length
            )
        table = self._walk.answers(
            entry["method"],
            entry["fraction"],
            self._facts,
            self._levels,
            removed_norm_share=self._choice["removed_norm_share"],
            max_new_tokens=self._length,
        )
        return table.with_columns(setting=pl.lit(""))


def spelled(settings: Mapping[str, Any]) -> str:
    """Settings of a rival in one word each."""
    return " ".join(f"{name}={value}" for name, value in sorted(settings.items()))


def _title(entry: Mapping[str, Any]) -> str:
    setting = f"{entry['fraction']:g}" if entry["fraction"] is not None else spelled(entry["settings"])
    return f"{entry['method']} {setting}".strip()


def _walk(task: Task, out: Path) -> Walk:
    options = task.options
    return Walk(
        resolve(task.places["model"]),
        resolve(asked_model(task, out)),
        region=options["region"],
        arithmetic=options["arithmetic"],
        seed=options["seed"],
    )


def _digests(task: Task, out: Path) -> dict[str, str]:
    return {"base": digest(resolve(task.places["model"])), "tuned": digest(resolve(asked_model(task, out)))}


def _facts(task: Task, out: Path, split: str) -> tuple[list[Fact], dict[str, int]]:
    found = read_facts(facts(task, out), split=split)
    return found, steps.read_levels(task.input(out, "mastery"), found) or {}


def _each(parts: Path, names: Sequence[str], make: Callable[[int], pl.DataFrame]) -> list[pl.DataFrame]:
    """Tables made one by one, each a file of its own until all are there, so that a killed cell goes on."""
    make_folder(parts)
    tables = []
    with bar("restoring and asking", len(names)) as advance:
        for number, name in enumerate(names):
            part = parts / f"{name}.parquet"
            if not part.exists():
                write_parquet(part, make(number))
            tables.append(pl.read_parquet(part))
            advance(1)
    return tables
