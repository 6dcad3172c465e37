"""Charts, and self-contained HTML pages: of a run, of a study, of studies side by side."""

from collections.abc import Sequence
from pathlib import Path

from knowshift.errors import InputError

COMPARED = Path("compared")


def build(run: Path) -> Path:
    """Write a run folder's ``report.html`` and ``charts/`` and return the page's path; see ``page.build``."""
    from knowshift.report import page

    return page.build(run)


def make(folders: Sequence[Path], out: Path | None = None, *, latex: bool = False, markdown: bool = False) -> Path:
    """Write the page of a run, of a study, or of several studies side by side.

    Args:
        folders: one run folder, or studies' folders. A study's tables are exported again where its cells are at hand.
        out: where the page of several goes; default ``compared``.
        latex, markdown: write studies' tables in these forms too.

    Returns:
        The page's path.

    Raises:
        InputError: if a folder is not what it must be, or a flag does not fit.
    """
    from knowshift.report import study

    if len(folders) == 1 and out is not None:
        raise InputError("--out is for several studies: one page stands in its own folder")
    if len(folders) == 1 and not (study.has_cells(folders[0]) or study.is_study(folders[0])):
        if latex or markdown:
            raise InputError(f"{folders[0]}: no study's folder; --latex and --markdown write a study's tables")
        return build(folders[0])
    for folder in folders:
        if study.has_cells(folder) or latex or markdown:
            study.export(folder, latex=latex, markdown=markdown)
    return study.write(folders[0]) if len(folders) == 1 else study.compare(folders, out or COMPARED)


__all__ = ["build", "make"]
