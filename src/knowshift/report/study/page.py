"""The page of a study, or of several side by side: claims first, then figures with their rows, then the other tables.

Made from exported tables alone.
"""

from dataclasses import dataclass
from pathlib import Path

from knowshift.report import document
from knowshift.report.study.claims import claims, summary
from knowshift.report.study.figures import Figure, figures
from knowshift.report.study.labels import FILTERS
from knowshift.report.study.rows import Shown, mark_claims, shown
from knowshift.report.study.source import Source
from knowshift.report.theme import DOMAINS
from knowshift.report.words import listing

_TITLES = {
    "subject": "Study", "level": "Trained on", "size": "Facts", "method": "Method", "domain": "Domain", "seed": "Seed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: its name, heading, and what can be picked: value and word. Of ``one`` only one at a time."""

    name: str
    title: str
    choices: list[tuple[str, str]]
    one: bool


def write(source: Source, folder: Path) -> Path:
    """Write ``report.html`` and ``charts/`` into a folder, and return the page's path."""
    shows = {name: shown(source, table) for name, table in source.tables.items()}
    mark_claims(source, shows)
    drawn, said = figures(source), claims(source)
    return document.write(
        folder / "report.html",
        "study.html.j2",
        styles=["style.css", "study/study.css"],
        scripts=["charts.js", "study/study.js"],
        charts=document.draw([(figure.panel, None) for figure in drawn], folder / "charts"),
        title=_title(source),
        several=len(source.subjects) > 1,
        claims=said,
        summary=summary(source, said),
        filters=_filters(shows),
        figures=drawn,
        tables=shows,
        others=_others(drawn, shows),
    )


def _title(source: Source) -> str:
    if len(source.names) > 1:
        return f"{listing(list(source.names))} side by side"
    models = list(source.subjects.values())
    if not models:
        models = sorted({model for model in _column(source, "model") if model})
    return f"What fine-tuning did to {listing(models)}: a study" if models else "A study"


def _column(source: Source, name: str) -> list[str]:
    return [
        value
        for table in source.tables.values()
        if name in table.frame.columns
        for value in table.frame[name].unique(maintain_order=True)
    ]


def _others(drawn: list[Figure], shows: dict[str, Shown]) -> list[Shown]:
    """Tables without a figure, other than the claims themselves."""
    own = {figure.table for figure in drawn}
    return [table for name, table in shows.items() if name not in own and name != "claims"]


def _filters(shows: dict[str, Shown]) -> list[Filter]:
    """What the tables' rows can be filtered by, where there is more than one of it."""
    found = []
    for name in FILTERS:
        values = dict.fromkeys(row.told[name] for table in shows.values() for row in table.rows if name in row.told)
        for table in shows.values():
            if table.columns and table.columns[0] == name:
                values |= dict.fromkeys(value for value in table.columns[1] if value)
        values.pop("both", None)
        if len(values) > 1:
            choices = [(value, _word(name, value)) for value in sorted(values, key=_order)]
            found.append(Filter(name, _TITLES[name], choices, one=name == "seed"))
    return found


def _word(name: str, value: str) -> str:
    return DOMAINS.get(value, value) if name == "domain" else value


def _order(value: str) -> tuple[int, str]:
    return (int(value), "") if value.isdecimal() else (1 << 62, value)
