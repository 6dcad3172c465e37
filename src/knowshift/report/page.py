"""``build``: a run folder becomes ``report.html``, one file that needs no network, and ``charts/``."""

from pathlib import Path

from knowshift.report import document, headline, knowledge, repair, repair_page, settings, weights
from knowshift.report.blocks import Figure, Section
from knowshift.report.data import Run

# Pixels of the chart files; in the page a chart is as wide as its place.
WIDE, HALF = 760, 460


def build(run: Path) -> Path:
    """Write ``report.html`` and ``charts/*.svg``, ``charts/*.png`` of a run folder, and return the page's path.

    Only files of the folder are read; of those only ``metrics.json`` must be there. What is missing is left
    out of the page with a sentence.

    Raises:
        InputError: if the folder has no ``metrics.json``, or a file of it is malformed.
    """
    opened = Run.open(run)
    if opened.record.get("command") == "repair":
        return _written(opened, *repair_page.told(opened))
    sections = [
        knowledge.mastery(opened),
        knowledge.accuracy(opened),
        knowledge.facts(opened),
        knowledge.drift(opened),
        weights.concentration(opened),
        repair.restoration(opened),
        settings.settings(opened),
    ]
    title = f"What fine-tuning did to {opened.title}"
    return _written(opened, title, "", headline.numbers(opened), headline.sentences(opened), sections)


def _written(
    run: Run, title: str, first: str, numbers: list[headline.Number], sentences: list[str], sections: list[Section]
) -> Path:
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    panels = [(part, WIDE if len(figure.panels) == 1 else HALF) for figure in figures for part in figure.panels]
    return document.write(
        run.folder / "report.html",
        "report.html.j2",
        styles=["style.css"],
        scripts=["charts.js", "changes.js"],
        charts=document.draw(panels, run.folder / "charts"),
        title=title,
        first=first,
        numbers=numbers,
        sentences=sentences,
        sections=sections,
    )
