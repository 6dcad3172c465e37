"""Charts, and one self-contained HTML page."""

from pathlib import Path


def build(run: Path) -> Path:
    """Write a run folder's ``report.html`` and ``charts/`` and return the page's path; see ``page.build``."""
    from knowshift.report import page

    return page.build(run)


__all__ = ["build"]
