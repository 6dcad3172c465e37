"""Compare training methods at matched in-domain accuracy:

    python benchmarks/methods.py PLAN.yaml --out DIR [--docs DIR] [--dry-run]

Scores the base, sweeps every method on validation facts, chooses by a rule that knows nothing else, then measures the
chosen settings on test facts. Killed, the same command goes on; what is finished is never run again.
"""

import argparse
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import methods_tables as tables
import polars as pl
import torch
from methods_cells import CHOICE, Cells, Choice
from methods_data import locate, prepare
from methods_page import FOLDER, build
from methods_plan import Cell, Plan, read
from methods_rule import choose, mark

from knowshift.errors import InputError
from knowshift.files import make_folder, read_json, write_json, write_parquet
from knowshift.progress import console
from knowshift.runs import now, record, versions


def run(plan: Plan, out: Path) -> None:
    """Everything, into ``out``: base, sweep, choice, test, tables."""
    with record(out, "methods", {"plan": plan.model_dump(mode="json")}, seed=plan.seed) as entry:
        data = prepare(plan, out)
        entry["models"] = {"base": data.base}
        cells = Cells(plan, data, out)
        cells.sweep()
        points = tables.sweep(cells)
        found = mark(points, plan.target)
        chosen = [
            {"cell": _cell(plan, row), "matched": row["matched"]}
            for row in choose(points, found["mark"]).iter_rows(named=True)
        ]
        choice = Choice.settle(out, found, chosen)
        cells.test(choice)
        write_tables(out, cells, choice, points)


def write_tables(out: Path, cells: Cells, choice: Choice, points: pl.DataFrame) -> None:
    """The tables and the facts about the run, of which the page is made."""
    folder = make_folder(out / "tables")
    data = cells.data
    found = {
        "sweep": points,
        "test": tables.test(cells, choice),
        "facts": tables.facts(cells, choice),
        "base": tables.base(data),
    }
    for name, table in found.items():
        write_parquet(folder / f"{name}.parquet", table)
    about = {
        "base": data.base,
        "versions": versions(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "prepare_seconds": data.about()["seconds"],
        "ended": now(),
    }
    write_json(folder / "about.json", about)


def estimate(plan: Plan, out: Path) -> str:
    """How many cells are left and how long they take: as long as finished ones of the same method and phase."""
    cells = Cells(plan, locate(plan, out), out)
    prepared = all(cells.data.training_set(seed).exists() for seed in (plan.sweep_seed, *plan.test_seeds))
    total = 0.0 if prepared else plan.seconds.prepare
    lines = [f"prepare: {'done' if prepared else f'about {total / 60:.0f} min'}"]
    for phase, wanted, usual in (
        ("sweep", plan.sweep(), plan.seconds.sweep),
        ("test", _guess(cells), plan.seconds.test),
    ):
        finished: dict[str, list[float]] = {cell.name: [] for cell in wanted}
        left = []
        for cell in wanted:
            if prepared and cells.done(phase, cell):
                finished[cell.name].append(read_json(cells.folder(phase, cell) / "run.json")["seconds"])
            else:
                left.append(cell)
        means = {name: sum(times) / len(times) for name, times in finished.items() if times}
        seconds = sum(means.get(cell.name, usual) for cell in left)
        total += seconds
        lines.append(f"{phase}: {len(wanted)} cells, {len(left)} left, about {seconds / 60:.0f} min")
    return "\n".join([*lines, f"all: about {total / 60:.0f} min left"])


def _guess(cells: Cells) -> list[Cell]:
    """The cells of the test; before the choice is made, as many."""
    if (cells.out / CHOICE).is_file():
        return cells.chosen(Choice.read(cells.out))
    first = {cell.name: cell for cell in cells.plan.sweep()}
    return [cell for _ in cells.plan.test_seeds for cell in first.values()]


def _cell(plan: Plan, row: dict[str, Any]) -> dict[str, Any]:
    (cell,) = (cell for cell in plan.sweep() if (cell.name, cell.setting) == (row["name"], row["setting"]))
    return cell.to_json()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def publish(plan: Path, out: Path, docs: Path) -> Path:
    """Copy plan and tables into ``docs/methods`` and write the page from them."""
    folder = make_folder(docs / FOLDER)
    if plan.resolve() != (folder / "plan.yaml").resolve():
        shutil.copyfile(plan, folder / "plan.yaml")
    for file in sorted((out / "tables").iterdir()):
        shutil.copyfile(file, folder / file.name)
    return build(docs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    parser.add_argument("--docs", type=Path, help="then write methods.md, tables and plots there")
    parser.add_argument("--dry-run", action="store_true", help="say how many cells there are and how long they take")
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        plan = read(arguments.plan)
        if arguments.dry_run:
            print(estimate(plan, arguments.out))
            return 0
        run(plan, arguments.out)
        if arguments.docs:
            console.print(str(publish(arguments.plan, arguments.out, arguments.docs)), highlight=False)
    except InputError as error:
        print(f"methods: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
