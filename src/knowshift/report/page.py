"""``build``: a run folder becomes ``report.html``, one file that needs no network, and ``charts/``.

Joins the parts: sections are made from the run, their charts drawn, everything set into one template with
Vega's code inlined. Every text from data is escaped; every specification is inlined as inert JSON.
"""

import base64
import datetime
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from knowshift import __version__
from knowshift.errors import InputError, missing_extra
from knowshift.files import atomic_file
from knowshift.progress import bar

try:
    import altair as alt
    import jinja2
    import vl_convert
except ImportError as error:
    raise missing_extra(error.name or "altair", "report") from error

from knowshift.report import headline, knowledge, repair, settings, weights
from knowshift.report.blocks import Figure, Panel, Section
from knowshift.report.data import Run
from knowshift.report.theme import specification

# Pixels of the chart files; in the page a chart is as wide as its place.
WIDE, HALF = 760, 460
PNG_SCALE = 2
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart ready for the page: its specification, and a picture that stands until (or unless) it is drawn."""

    name: str
    heading: str
    description: str
    spec: dict[str, Any]
    picture: str


def build(run: Path) -> Path:
    """Write ``report.html`` and ``charts/*.svg``, ``charts/*.png`` of a run folder, and return the page's path.

    Only files of the folder are read; of those only ``metrics.json`` must be there. What is missing is left
    out of the page with a sentence.

    Raises:
        InputError: if the folder has no ``metrics.json``, or a file of it is malformed.
    """
    opened = Run.open(run)
    sections = [
        knowledge.mastery(opened),
        knowledge.accuracy(opened),
        knowledge.facts(opened),
        knowledge.drift(opened),
        weights.concentration(opened),
        repair.restoration(opened),
        settings.settings(opened),
    ]
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=f"What fine-tuning did to {opened.title}",
            run=opened,
            numbers=headline.numbers(opened),
            sentences=headline.sentences(opened),
            sections=sections,
            drawn=_draw(sections, run / "charts"),
            style=_asset("style.css"),
            script=_asset("script.js"),
            vega=_vega(),
            version=__version__,
            written=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
    )
    page = run / "report.html"
    with atomic_file(page) as partial:
        partial.write_text(text, "utf-8")
    return page


def _draw(sections: list[Section], folder: Path) -> dict[str, Drawn]:
    """Every chart by name, written as SVG and PNG on the way."""
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    wanted = [(part, WIDE if len(figure.panels) == 1 else HALF) for figure in figures for part in figure.panels]
    drawn: dict[str, Drawn] = {}
    with bar("Drawing charts", len(wanted)) as advance:
        for part, width in wanted:
            if part.name in drawn:
                raise InputError(f"two charts of the report are both called {part.name}")
            drawn[part.name] = _draw_one(part, width, folder)
            advance(1)
    return drawn


def _draw_one(part: Panel, width: int, folder: Path) -> Drawn:
    spec = specification(part.chart)
    fixed = spec | {"width": width, "background": "white", "padding": 8}
    svg = vl_convert.vegalite_to_svg(fixed, vl_version=VEGA_LITE)
    with atomic_file(folder / f"{part.name}.svg") as partial:
        partial.write_text(svg, "utf-8")
    with atomic_file(folder / f"{part.name}.png") as partial:
        partial.write_bytes(vl_convert.svg_to_png(svg, scale=PNG_SCALE))
    picture = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    return Drawn(
        part.name,
        part.heading,
        spec["description"],
        spec | {"width": "container"},
        f"data:image/svg+xml;base64,{picture}",
    )


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("knowshift.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    return resources.files("knowshift.report").joinpath(name).read_text("utf-8")


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, which must not close its own element."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
