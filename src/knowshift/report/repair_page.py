"""A repair's run folder as a page: the sentence first, then what was tried, the test, and what changed."""

from knowshift.report import commands, repair_sections, repair_words
from knowshift.report.blocks import Section
from knowshift.report.data import Run
from knowshift.report.headline import Number


def told(run: Run) -> tuple[str, str, list[Number], list[str], list[Section]]:
    """Title, the sentence, four numbers, no further sentences, and the sections; only files of the folder are read."""
    sections = [
        repair_sections.frontier(run),
        repair_sections.test(run),
        repair_sections.facts(run),
        repair_sections.drift(run),
        repair_sections.places(run),
        repair_sections.model(run, commands.repair(run)),
    ]
    sentence = str(run.metrics.get("sentence", ""))
    return repair_words.heading(run), sentence, repair_words.numbers(run), [], sections
