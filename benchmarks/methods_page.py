"""``methods.md`` from the tables of a comparison, and from nothing else: python benchmarks/methods_page.py docs/results

Every figure and every sentence with one is computed here from ``methods/*.parquet`` and ``methods/about.json``.
"""

import sys
from pathlib import Path
from typing import Any

import methods_charts as charts
import polars as pl
from methods_figures import COMPARED, differences, means, one, verdict
from methods_plan import Plan, read
from methods_rule import choose, mark
from methods_tables import DOMAINS, names
from methods_words import cost, seen, setup

from knowshift.files import atomic_file, read_json, write_parquet
from knowshift.mastery.levels import LEVELS
from knowshift.report.words import percent, percent_range, points_range
from knowshift.train.methods import chosen as methods_of

FOLDER = "methods"


def build(results: Path) -> Path:
    """Write ``methods.md``, the plots and the tables of figures from ``results/methods``.

    Raises:
        InputError: if a table is missing or the plan cannot be read.
    """
    folder = results / FOLDER
    found = Results(folder)
    for name, chart in found.charts().items():
        charts.save(chart, folder / f"{name}.svg")
    for name, table in (("figures", found.means), ("differences", found.differences)):
        write_parquet(folder / f"{name}.parquet", table)
        with atomic_file(folder / f"{name}.csv") as partial:
            table.write_csv(partial, float_precision=4)
    with atomic_file(results / "methods.md") as partial:
        partial.write_text(found.page(), "utf-8")
    return results / "methods.md"


class Results:
    """The tables of one comparison, and what is computed from them."""

    def __init__(self, folder: Path) -> None:
        self.plan: Plan = read(folder / "plan.yaml")
        self.about: dict[str, Any] = read_json(folder / "about.json")
        self.points, self.test, self.facts, self.base = (
            pl.read_parquet(folder / f"{name}.parquet") for name in ("sweep", "test", "facts", "base")
        )
        self.mark = mark(self.points, self.plan.target)
        self.chosen = choose(self.points, self.mark["mark"])
        self.methods = [entry.name for entry in self.plan.methods if entry.name in names(self.test)]
        self.means = means(self.facts, self.methods, seed=self.plan.seed)
        against = [name for name in self.plan.against if name in self.methods]
        self.differences = differences(self.facts, self.methods, against, seed=self.plan.seed)
        self.against = against

    def charts(self) -> dict[str, Any]:
        """The plots by file name."""
        looks = charts.Looks(self.methods, self.plan.target, self.plan.ours)
        kept = pl.col("ood_kept") / pl.col("ood_known")
        wide = self._wide()
        return {
            "sweep": charts.frontier(
                self.points.with_columns(kept=kept).select("name", "setting", "id_accuracy", "kept"),
                self.chosen.with_columns(kept=kept).select("name", "setting", "id_accuracy", "kept"),
                self.mark["mark"],
                looks,
            ),
            "test": charts.confirmed(wide, looks),
            "lost": charts.lost(self._lost(), self.methods),
        }

    def page(self) -> str:
        """The text."""
        parts = [
            "# Training methods compared at matched in-domain accuracy",
            "Made by `benchmarks/methods.py` from the tables in [methods/](methods); not written by hand.",
            setup(self),
            "## What one sees",
            seen(self),
            "## Facts kept, on test",
            self.kept_table(),
            "![Known facts lost on test, by method and domain](methods/lost.svg)",
            "![Known out-of-domain facts kept against in-domain accuracy on test](methods/test.svg)",
            f"## Against {' and '.join(self.against)}",
            self.difference_table(),
            "## How far answers and weights moved",
            self.moved_table(),
            "## Accuracy by mastery level, on test",
            self.level_table(),
            "## The sweep, on validation",
            "![Known out-of-domain facts kept against in-domain accuracy on validation](methods/sweep.svg)",
            self.sweep_table(),
            "## Methods",
            self.method_table(),
            cost(self),
        ]
        return "\n\n".join(parts) + "\n"

    def matched(self, name: str) -> bool:
        """Whether a method reached the mark on validation."""
        return bool(self.chosen.filter(name=name)["matched"][0])

    def verdict(self, name: str, other: str) -> str:
        """Whether ``name`` keeps more than ``other`` at matched in-domain accuracy."""
        kept, accuracy = (
            one(self.differences, name=name, against=other, measure=measure) for measure in ("ood_kept", "id_accuracy")
        )
        return verdict(kept, accuracy, self.matched(name))

    def kept_table(self) -> str:
        """Accuracy and facts kept, with intervals."""
        rows = []
        for row in self.base.sort("form").iter_rows(named=True):
            columns = (*(f"{domain}_accuracy" for domain in DOMAINS), "id_strict", "in_format")
            shares = [percent(row[column]) for column in columns]
            rows.append([f"base, asked in the form {row['form']}", "", *shares, "", "", ""])
        for name in self.methods:
            cells = [
                percent_range(one(self.means, name=name, measure=measure))
                for measure in ("id_accuracy", "ood_accuracy", "id_strict", "id_kept", "ood_kept")
            ]
            cells.insert(3, percent(float(self.test.filter(name=name)["in_format"].to_numpy().mean())))
            spread = self.means.filter(name=name, measure="ood_kept")["spread"][0]
            setting = self.chosen.filter(name=name)["setting"][0]
            marked = "" if self.matched(name) else " (not matched)"
            rows.append([name + marked, setting, *cells, "" if spread is None else f"{100 * spread:.1f}"])
        head = ["method", "setting", "in-domain", "out-of-domain", "in-domain, strict", "in format"]
        kept = ["in-domain known kept", "out-of-domain known kept", "its spread, points"]
        return _table([*head, *kept], rows)

    def difference_table(self) -> str:
        """Each method less the ones it is compared with, in points."""
        kept = ["known kept out-of-domain", "the same, strict", "known kept in-domain"]
        titles = [*kept, "in-domain accuracy", "out-of-domain accuracy"]
        rows = []
        for row in self.differences.select("name", "against").unique(maintain_order=True).iter_rows(named=True):
            cells = [
                points_range(one(self.differences, **row, measure=measure)).replace(" points", "")
                for measure in COMPARED
            ]
            rows.append([row["name"], row["against"], *cells, self.verdict(row["name"], row["against"])])
        return _table(["method", "less", *titles, "keeps more at matched accuracy"], rows)

    def moved_table(self) -> str:
        """Drift on known facts, weights, recall of the trained facts, seconds: means over seeds."""
        rows = []
        for name in self.methods:
            own = self.test.filter(name=name)
            kl = [one(self.means, name=name, measure=measure) for measure in ("kl", "end_kl")]
            drift = [f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})" for value in kl]
            recall, changed, norm, seconds = (
                float(own[column].to_numpy().mean())
                for column in ("recall", "changed_share", "relative_norm", "training_seconds")
            )
            rows.append([name, *drift, percent(changed), f"{norm:.4f}", percent(recall), f"{seconds:.0f}"])
        head = ["method", "KL on answers, nats", "KL at the end token, nats", "weights changed"]
        return _table([*head, "update / base, norm", "trained facts recalled", "training, s"], rows)

    def level_table(self) -> str:
        """Accuracy on test facts of each level, means over seeds."""
        head = ["method", *(f"{domain} {level}" for domain in DOMAINS for level in LEVELS)]
        rows = []
        for name in self.methods:
            own = self.test.filter(name=name)
            shares = [own[f"{domain}_level_{level}"].drop_nulls() for domain in DOMAINS for level in LEVELS]
            rows.append([name, *(percent(float(share.to_numpy().mean())) if len(share) else "" for share in shares)])
        return _table(head, rows)

    def sweep_table(self) -> str:
        """Every point of the sweep; the chosen in bold."""
        rows = []
        chosen = set(self.chosen.select("name", "setting").iter_rows())
        for row in self.points.iter_rows(named=True):
            kept = [f"{row[f'{domain}_kept']} of {row[f'{domain}_known']}" for domain in DOMAINS]
            cells = [row["name"], row["setting"], *(percent(row[f"{domain}_accuracy"]) for domain in DOMAINS), *kept]
            bold = (row["name"], row["setting"]) in chosen
            rows.append([f"**{cell}**" if bold else cell for cell in [*cells, f"{row['last_loss']:.2f}"]])
        head = ["method", "setting", "in-domain", "out-of-domain", "in-domain known kept", "out-of-domain known kept"]
        return _table([*head, "loss, last fifth"], rows)

    def method_table(self) -> str:
        """What each is and where it is from."""
        rows = []
        for entry in self.plan.methods:
            parts = methods_of(entry.method, entry.set)
            options = ", ".join(f"{key}={value}" for key, value in entry.set.items())
            source = "; ".join(part.source for part in parts)
            rows.append([entry.name, f"`--method {entry.method}`", options, source])
        return _table(["name", "spelling", "options beside defaults", "source"], rows)

    def _wide(self) -> pl.DataFrame:
        rows: list[dict[str, Any]] = []
        for name in self.methods:
            row: dict[str, Any] = {"name": name}
            for label, measure in (("accuracy", "id_accuracy"), ("kept", "ood_kept")):
                figure = one(self.means, name=name, measure=measure)
                row |= {label: figure.value, f"{label}_low": figure.low, f"{label}_high": figure.high}
            rows.append(row)
        return pl.DataFrame(rows)

    def _lost(self) -> pl.DataFrame:
        rows: list[dict[str, Any]] = []
        for name in self.methods:
            for domain in DOMAINS:
                kept = one(self.means, name=name, measure=f"{domain}_kept")
                ends = {"low": 1 - kept.high, "high": 1 - kept.low}
                rows.append({"name": name, "domain": domain, "lost": 1 - kept.value, **ends})
        return pl.DataFrame(rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
