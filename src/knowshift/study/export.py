"""A study's tables as files: Parquet and CSV always, LaTeX and Markdown on request, and what they are in one list.

Written from the cells' Parquet files alone. Knows how a number is printed; computes none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowshift.files import atomic_file, make_folder, read_json, read_parquet, write_json, write_parquet
from knowshift.measure.bootstrap import RESAMPLES
from knowshift.study.claims import as_tables, judge
from knowshift.study.measures import read as read_measures
from knowshift.study.tables import Table, build
from knowshift.study.tables.table import FIGURES

FOLDER, LISTED = "tables", "tables.json"
MISSING = "missing"
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "\N{MINUS SIGN}": r"$-$", "\n": " ", "\r": " ",
}  # fmt: skip
_MARKDOWN = {
    **{mark: f"\\{mark}" for mark in "\\`*_[]|"},
    "&": "&amp;", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " ",
}  # fmt: skip


def export(
    out: Path, *, latex: bool = False, markdown: bool = False, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Table]:
    """Make every table and verdict of a study and write them into its folder ``tables``.

    Args:
        out: the study's folder, finished or not.
        latex, markdown: also write these.
        seed, resamples: of the intervals.

    Raises:
        InputError: if it is no study's folder.
    """
    measures = read_measures(out, seed=seed, resamples=resamples)
    tables = build(measures)
    for table in as_tables(judge(measures, tables)):
        tables[table.name] = table
    write(tables.values(), out / FOLDER, latex=latex, markdown=markdown)
    return tables


def write(tables: Iterable[Table], folder: Path, *, latex: bool = False, markdown: bool = False) -> None:
    """Write tables, each whole or not at all, and ``tables.json``, which lists them."""
    make_folder(folder)
    listed = []
    for table in tables:
        write_parquet(folder / f"{table.name}.parquet", table.frame)
        with atomic_file(folder / f"{table.name}.csv") as partial:
            partial.write_text(table.frame.write_csv(), "utf-8")
        for wanted, suffix, text in ((latex, "tex", as_latex), (markdown, "md", as_markdown)):
            if wanted:
                with atomic_file(folder / f"{table.name}.{suffix}") as partial:
                    partial.write_text(text(table), "utf-8")
        listed.append({name: value for name, value in vars(table).items() if name != "frame"})
    write_json(folder / LISTED, listed)


def read(folder: Path) -> dict[str, Table]:
    """The tables that ``write`` wrote, by name.

    Raises:
        InputError: naming what cannot be read.
    """
    found = {}
    for entry in read_json(folder / LISTED):
        file = folder / f"{entry['name']}.parquet"
        frame = read_parquet(file)
        found[entry["name"]] = Table(
            **{**entry, "notes": tuple(entry["notes"]), "beside": tuple(entry["beside"]), "frame": frame}
        )
    return found


@dataclass(frozen=True)
class Printed:
    """A table as text.

    Attributes:
        caption: title, and what all rows have in common.
        header, rows: the cells, not escaped.
        labels: how many columns, from the first, tell the row.
    """

    caption: str
    header: list[str]
    rows: list[list[str]]
    labels: int


def printed(table: Table) -> Printed:
    """The table as a reader sees it: one column a value of ``across``, labels that never change in the caption.

    A cell is mean, ± standard deviation over seeds, and the interval in brackets; shares are in percent.
    """
    frame = table.frame
    if not {"value", "state"} <= set(frame.columns):
        columns = frame.columns
        rows = [[_plain(value) for value in row] for row in frame.iter_rows()]
        return Printed(table.title, [_named(name) for name in columns], rows, len(columns))
    told = [name for name in frame.columns if name not in (*FIGURES, table.across, *table.beside)]
    same = [name for name in told if frame.height and frame[name].n_unique() == 1]
    common = [f"{_named(name)} {_plain(frame[name][0])}" for name in same if frame[name][0] is not None]
    told = [name for name in told if name not in same]
    caption = f"{table.title} ({', '.join(common)})" if common else table.title
    if table.across is None:
        rows = [[*(_plain(row[name]) for name in told), _cell(row, table.unit)] for row in frame.iter_rows(named=True)]
        return Printed(caption, [*map(_named, told), "value"], rows, len(told))
    across = frame[table.across].unique(maintain_order=True).to_list()
    cells: dict[tuple[Any, ...], dict[Any, str]] = {}
    for row in frame.iter_rows(named=True):
        cells.setdefault(tuple(row[name] for name in told), {})[row[table.across]] = _cell(row, table.unit)
    header = [*map(_named, told), *(_column(table.across, value) for value in across)]
    return Printed(
        caption,
        header,
        [[*map(_plain, label), *(found.get(value, "") for value in across)] for label, found in cells.items()],
        len(told),
    )


def as_latex(table: Table) -> str:
    """The table in LaTeX, for the packages booktabs and longtable; all text escaped."""
    shown = printed(table)
    columns = "l" * shown.labels + "r" * (len(shown.header) - shown.labels)
    lines = [
        f"% {table.command}",
        rf"\begin{{longtable}}{{{columns}}}",
        rf"\caption{{{_escaped(shown.caption, _LATEX)}}} \label{{tab:{table.name}}} \\",
        r"\toprule",
        _row(shown.header, " & ", _LATEX) + r" \\",
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
        *(_row(row, " & ", _LATEX) + r" \\" for row in shown.rows),
        r"\end{longtable}",
        *(f"{_escaped(note, _LATEX)}\n" for note in table.notes),
    ]
    return "\n".join(lines) + "\n"


def as_markdown(table: Table) -> str:
    """The table in Markdown; all text escaped."""
    shown = printed(table)
    lines = [
        f"### {_escaped(shown.caption, _MARKDOWN)}",
        "",
        f"| {_row(shown.header, ' | ', _MARKDOWN)} |",
        "|" + "---|" * shown.labels + "---:|" * (len(shown.header) - shown.labels),
        *(f"| {_row(row, ' | ', _MARKDOWN)} |" for row in shown.rows),
        "",
        *(f"- {_escaped(note, _MARKDOWN)}" for note in table.notes),
        f"- Made by `{table.command}`.",
    ]
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any], unit: str) -> str:
    if row["value"] is None:
        return f"{MISSING}: {row['why']}" if row["why"] else MISSING
    shown = {name: _number(row[name], unit) for name in ("value", "low", "high", "spread")}
    spread = f" ±{shown['spread']}" if row["spread"] is not None else ""
    seeds = f" ({row['seeds']} of {row['asked_seeds']} seeds)" if row["state"] == "partial" else ""
    return f"{shown['value']}{spread} [{shown['low']}, {shown['high']}]{seeds}"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    text = f"{100 * value:.1f}" if unit == "share" else f"{value:.3f}"
    return text.lstrip("-") if float(text) == 0 else text


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _column(across: str, value: Any) -> str:
    if value is None:
        return "mean" if across == "test_level" else "not trained" if across == "asked_size" else "none"
    return f"{_named(across)} {_plain(value)}" if across in ("test_level", "layer", "fraction") else _plain(value)


def _named(column: str) -> str:
    return column.replace("_", " ")


def _row(cells: Sequence[str], between: str, marks: dict[str, str]) -> str:
    return between.join(_escaped(cell, marks) for cell in cells)


def _escaped(text: str, marks: dict[str, str]) -> str:
    return text.translate({ord(mark): said for mark, said in marks.items()})
