"""The cells' files as three tidy tables: points of the sweep, cells of the test, and the test fact by fact."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from methods_cells import Cells, Choice
from methods_data import Data
from methods_plan import Cell

from knowshift.files import read_json
from knowshift.mastery.levels import LEVELS
from knowshift.measure.pairs import read_answers

DOMAINS = ("id", "ood")


def sweep(cells: Cells) -> pl.DataFrame:
    """One row a point of the sweep, on validation facts."""
    found = cells.plan.sweep()
    known = set(cells.data.answers("validation").filter("contains")["id"])
    return pl.DataFrame([_row(cell, cells.folder("sweep", cell), known) for cell in found], infer_schema_length=None)


def test(cells: Cells, choice: Choice) -> pl.DataFrame:
    """One row a cell of the test: what ``sweep`` has, levels, recall of the trained facts, drift and weights."""
    known = set(cells.data.answers("test").filter("contains")["id"])
    norm = cells.data.about()["base_norm"]
    rows = []
    for cell in cells.chosen(choice):
        folder = cells.folder("test", cell)
        answers, moved = read_answers(folder / "eval"), read_json(folder / "diff" / "metrics.json")
        drift = pl.read_parquet(folder / "drift" / "drift.parquet")
        rows.append(
            _row(cell, folder, known)
            | {
                f"{domain}_level_{level}": answers.filter(domain=domain, level=level)["contains"].mean()
                for domain in DOMAINS
                for level in LEVELS
            }
            | {"recall": read_answers(folder / "trained")["contains"].mean()}
            | {"kl": drift["kl_tuned_base"].mean(), "end_kl": drift["end_kl_tuned_base"].mean()}
            | {"changed_share": moved["changed_share"], "relative_norm": moved["update_norm"] / norm}
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def facts(cells: Cells, choice: Choice) -> pl.DataFrame:
    """One row a test cell and fact: name, seed, id, domain, level, contains, strict, known (to the base), kl, end_kl.

    The two divergences, in nats, are there for known facts.
    """
    known = cells.data.answers("test").select("id", known="contains")
    parts = []
    for cell in cells.chosen(choice):
        folder = cells.folder("test", cell)
        drift = pl.read_parquet(folder / "drift" / "drift.parquet")
        parts.append(
            read_answers(folder / "eval")
            .select("id", "domain", "level", "contains", "strict")
            .join(known, on="id", maintain_order="left")
            .join(
                drift.select("id", kl="kl_tuned_base", end_kl="end_kl_tuned_base"),
                on="id",
                how="left",
                maintain_order="left",
            )
            .select(pl.lit(cell.name).alias("name"), pl.lit(cell.seed).alias("seed"), pl.all())
            .with_columns(pl.col("kl", "end_kl").cast(pl.Float32))
        )
    return pl.concat(parts).with_columns(pl.col("name", "id", "domain").cast(pl.Categorical))


def base(data: Data) -> pl.DataFrame:
    """One row a form in which the base was asked the test facts."""
    rows: list[dict[str, Any]] = []
    for folder in sorted(data.root.glob("base-test-*")):
        answers = read_answers(folder)
        rows.append({"form": folder.name.removeprefix("base-test-"), **_accuracy(answers)})
    return pl.DataFrame(rows)


def _row(cell: Cell, folder: Path, known: set[str]) -> dict[str, Any]:
    answers, entry = read_answers(folder / "eval"), read_json(folder / "run.json")
    loss = pl.read_parquet(folder / "train" / "train_log.parquet")["loss"]
    row: dict[str, Any] = {
        "name": cell.name,
        "method": cell.method,
        "setting": cell.setting,
        "learning_rate": cell.learning_rate,
        "cell": json.dumps(cell.to_json()),
        "seed": cell.seed,
        **_accuracy(answers),
    }
    for domain in DOMAINS:
        asked = answers.filter(pl.col("id").is_in(known), domain=domain)
        row |= {f"{domain}_known": asked.height, f"{domain}_kept": int(asked["contains"].sum())}
    last = _mean(loss.tail(max(1, len(loss) // 5)))
    return row | {"last_loss": last, "training_seconds": entry["training_seconds"], "seconds": entry["seconds"]}


def _accuracy(answers: pl.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for domain in DOMAINS:
        own = answers.filter(domain=domain)
        found |= {f"{domain}_facts": own.height, f"{domain}_hits": int(own["contains"].sum())}
        found |= {f"{domain}_accuracy": own["contains"].mean(), f"{domain}_strict": own["strict"].mean()}
    return found | {"in_format": answers["in_format"].mean()}


def _mean(values: pl.Series) -> float:
    return float(values.to_numpy().mean())


def names(table: pl.DataFrame) -> Sequence[str]:
    """The methods of a table, in its order."""
    return list(table["name"].unique(maintain_order=True).cast(pl.String))
