"""The page of a study, or of several side by side, from the tables that they exported."""

from collections.abc import Sequence
from pathlib import Path

from knowshift.files import read_json
from knowshift.report.study.source import has_cells, is_study, open_studies
from knowshift.study import export as tables

__all__ = ["compare", "export", "has_cells", "is_study", "write"]

_PLAN = "plan.json"


def write(out: Path) -> Path:
    """Write a study's ``report.html`` and ``charts/`` from its tables, and return the page's path.

    Raises:
        InputError: if it has no tables, one cannot be read, or packages that draw are missing.
    """
    from knowshift.report.study import page

    return page.write(open_studies([out]), out)


def compare(studies: Sequence[Path], out: Path) -> Path:
    """Write one page of several studies side by side, and its charts, into ``out``; returns the page's path.

    Raises:
        InputError: as ``write``, and for one study twice.
    """
    from knowshift.report.study import page

    return page.write(open_studies(studies), out)


def export(out: Path, *, latex: bool = False, markdown: bool = False) -> None:
    """Write a study's tables, those of single seeds among them: from its cells, or as they are if it has none.

    Raises:
        InputError: if it is no study's folder.
    """
    from knowshift.report.study import seeds

    if not has_cells(out):
        tables.write(tables.read(out / tables.FOLDER).values(), out / tables.FOLDER, latex=latex, markdown=markdown)
        return
    seed = int(read_json(out / _PLAN).get("seed", 0)) if (out / _PLAN).is_file() else 0
    made = tables.export(out, latex=latex, markdown=markdown, seed=seed)
    made[seeds.NAME] = seeds.of_cells(out, seed)
    tables.write(made.values(), out / tables.FOLDER, latex=latex, markdown=markdown)
