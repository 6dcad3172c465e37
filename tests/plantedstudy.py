"""A study whose truth is known: its cells' tables as measured on models that answer as planted, in memory or as files.

A fact is answered where its own difficulty is below the model's chance for its level, so models agree about facts as
real ones do; trainings differ by a draw of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from knowshift.files import digest_of, write_json, write_parquet
from knowshift.study.cell import Cell
from knowshift.study.index import Missing, Standing, read, table, write_grid
from knowshift.study.marks import mark_done
from knowshift.study.measures import Measures, gather

RESTORED = ("relative", "interpolate", "random", "base-magnitude", "absolute")
BLOCKS = ("0-3", "4-7", "8-11")
MODULES = ("q", "k", "v", "o", "gate", "up", "down")
PARAMETERS = (4, 1, 1, 4, 12, 12, 12)
FRACTION = 0.2


@dataclass(frozen=True)
class Truth:
    """What is planted; with the defaults nothing differs from anything.

    Attributes:
        accuracy: added to the chance of an answer, by training level, size and method.
        restored: added by putting weights back, by name: relative, interpolate and so on, or a block of layers.
        kl: mean divergence by training level and size.
        share, null: of the summed change in the top 1 %.
        ffn: factor by which restored weights are more frequent in the feed-forward part.
        between: standard deviation of chances between trainings.
    """

    accuracy: Callable[[int, int, str], float] = lambda level, size, method: 0.0
    restored: Callable[[str], float] = lambda name: 0.0
    kl: Callable[[int, int], float] = lambda level, size: 0.5
    share: float = 0.7
    null: float = 0.7
    ffn: float = 1.0
    between: float = 0.01


class Planted:
    """Cells of a study of one model.

    Args:
        out: where their files go.
    """

    def __init__(
        self,
        out: Path,
        truth: Truth,
        *,
        levels: Sequence[int] = (0, 1, 2, 3, 4),
        sizes: Sequence[int] = (60, 240, 960),
        seeds: Sequence[int] = (0, 1, 2),
        methods: Sequence[str] = ("sft", "lora"),
        facts: int = 40,
        draw: int = 0,
        model: str = "planted",
    ) -> None:
        self.out, self.truth, self.model = out, truth, model
        self.levels, self.sizes, self.seeds, self.methods = levels, sizes, seeds, methods
        self._random = np.random.default_rng(draw)
        self.facts = {split: self._facts(split, facts) for split in ("validation", "test")}
        self._hard = {split: self._random.random(asked.height) for split, asked in self.facts.items()}
        self.cells: dict[Cell, dict[str, pl.DataFrame]] = {}
        self.missing: list[Missing] = []

    def plan(self) -> list[Cell]:
        """Every cell, with its tables at hand."""
        if self.cells:
            return list(self.cells)
        self._asked("base", {}, "trained", 0.0)
        self._asked("base", {}, "few-shot", 0.0)
        for level in self.levels:
            for size in self.sizes:
                for seed in self.seeds:
                    for method in self.methods:
                        self._trained(level, size, seed, method)
        return list(self.cells)

    def in_memory(self, resamples: int = 300) -> Measures:
        """What is measured, without a file."""
        self.plan()
        return self.measured(resamples)

    def measured(self, resamples: int = 300) -> Measures:
        """What is read of the tables as they are now."""
        tasks = [cell.as_task() for cell in self.cells]
        index = table(tasks, [Standing("done")] * len(tasks), self.missing)
        files = {cell.folder(Path()).as_posix(): made for cell, made in self.cells.items()}
        return gather(index, lambda folder, name: files[folder][name], resamples=resamples)

    def write(self, *, without: Callable[[Cell], bool] = lambda cell: False) -> pl.DataFrame:
        """Write every cell but those that are left ``without``; the index as the folders tell it."""
        self.plan()
        write_grid(self.out, list(self.cells), self.missing)
        for cell, files in self.cells.items():
            if not without(cell):
                self._done(cell, files)
        return read(self.out)

    def _trained(self, level: int, size: int, seed: int, method: str) -> None:
        truth, told = (
            self.truth,
            {"level": level, "asked_size": str(size), "size": size, "seed": seed, "method": method},
        )
        moved = truth.accuracy(level, size, method) + self._random.normal(0, truth.between)
        self._asked("tuned", told, "trained", moved)
        if method != "sft":
            return
        kl = np.maximum(truth.kl(level, size) + self._random.normal(0, truth.between, self.facts["test"].height), 0)
        self._add("drift", {**told, "split": "test", "mode": "paper"}, {"drift.parquet": self._drift(kl)})
        self._add("diff", told, self._diff())
        named: list[tuple[str, str, float | None]] = [("relative", "", 0.0)]
        named += [(name, "", fraction) for fraction in (0.05, FRACTION) for name in RESTORED]
        blocks = [("layers", f"layers={block}", None) for block in BLOCKS]
        noise = {name: self._random.normal(0, truth.between) for name in (*RESTORED, *BLOCKS)}
        for kind, split, wanted in (
            ("sweep", "validation", named + blocks),
            ("confirm", "test", [one for one in named if one[2] in (0.0, FRACTION)]),
        ):
            tables = []
            for name, setting, fraction in wanted:
                key = setting.removeprefix("layers=") or name
                gain = 0.0 if fraction == 0 else truth.restored(key) + noise[key]
                answers = self._answers(split, moved + gain)
                tables.append(
                    answers.with_columns(
                        method=pl.lit(name),
                        setting=pl.lit(setting),
                        fraction=pl.lit(fraction, dtype=pl.Float64),
                        alpha=pl.lit(0.8 if name == "interpolate" else None, dtype=pl.Float64),
                        removed_norm_share=pl.lit(0.3 if fraction else 0.0),
                    )
                )
            self._add(kind, {**told, "split": split}, {"answers.parquet": pl.concat(tables)})

    def _asked(self, role: str, told: dict[str, Any], form: str, moved: float) -> None:
        for split in self.facts:
            answers = self._answers(split, moved)
            self._add("eval", {"role": role, **told, "split": split, "form": form}, {"answers.parquet": answers})

    def _facts(self, split: str, count: int) -> pl.DataFrame:
        """``count`` facts of each domain and level."""
        rows = [
            (f"{split}-{domain}-{level}-{number}", domain, level)
            for domain in ("id", "ood")
            for level in range(5)
            for number in range(count)
        ]
        return pl.DataFrame(rows, schema={"id": pl.String, "domain": pl.String, "level": pl.Int8}, orient="row")

    def _answers(self, split: str, moved: float) -> pl.DataFrame:
        asked = self.facts[split]
        chance = 0.2 + 0.15 * asked["level"].to_numpy() + moved
        hits = self._hard[split] < chance
        # A few answers go either way from one model to the next.
        flipped = self._random.random(asked.height) < 0.03
        hit = pl.Series(np.where(flipped, self._random.random(asked.height) < 0.5, hits))
        return asked.with_columns(topic=pl.lit("T"), text=pl.lit("x"), contains=hit, strict=hit, in_format=pl.lit(True))

    def _drift(self, kl: np.ndarray[Any, Any]) -> pl.DataFrame:
        return self.facts["test"].with_columns(topic=pl.lit("T"), kl_tuned_base=pl.Series(kl))

    def _diff(self) -> dict[str, pl.DataFrame]:
        share = self.truth.share + self._random.normal(0, 0.003)
        concentration = pl.DataFrame(
            {
                "fraction": [0.01, FRACTION],
                "share": [share, 0.9],
                "null_share": [self.truth.null, 0.91],
                "energy_share": [0.1, 0.3],
                "paper": [True, True],
            }
        )
        rows = []
        for layer in range(12):
            weights = [
                size * (self.truth.ffn if name in ("gate", "up", "down") else 1.0) * self._random.normal(1, 0.01)
                for name, size in zip(MODULES, PARAMETERS, strict=True)
            ]
            rows += [
                (layer, name, size, size, weight)
                for name, size, weight in zip(MODULES, PARAMETERS, weights, strict=True)
            ]
        modules = pl.DataFrame(rows, schema=["layer", "module", "parameters", "changed", "weight"], orient="row")
        part = pl.col("weight") / pl.col("weight").sum()
        enriched = part / (pl.col("parameters") / pl.col("parameters").sum())
        named = {f"restored_share_{FRACTION}": part, f"enrichment_{FRACTION}": enriched}
        return {"concentration.parquet": concentration, "modules.parquet": modules.with_columns(**named).drop("weight")}

    def _add(self, kind: str, labels: dict[str, Any], files: dict[str, pl.DataFrame]) -> None:
        told = {"role": "tuned", "model": self.model, **labels}
        self.cells[Cell(kind, told, (), labels=told)] = files

    def _done(self, cell: Cell, files: dict[str, pl.DataFrame]) -> None:
        folder = cell.folder(self.out)
        for name, made in files.items():
            write_parquet(folder / name, made)
        write_json(folder / "cell.json", cell.as_task().as_json())
        mark_done(
            folder, cell.key, files=list(files), result=digest_of(cell.key), inputs={}, seconds=1.0, peak_bytes=None
        )
