"""What every page is made of: one HTML file that needs no network, its charts beside it as SVG and PNG.

Every text from data is escaped; every specification is inlined as inert JSON. Knows nothing of what a page tells.
"""

import base64
import datetime
from collections.abc import Sequence
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

from knowshift.report.blocks import Panel
from knowshift.report.theme import specification

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


def write(
    path: Path, template: str, *, styles: Sequence[str], scripts: Sequence[str], charts: dict[str, Drawn], **told: Any
) -> Path:
    """Render a template that extends ``layout.html.j2`` and write it, whole or not at all.

    Args:
        path: the page.
        template: its name among the templates.
        styles, scripts: files of this package, in order.
        charts: by name, as ``draw`` gives them.
        told: what the template takes besides.
    """
    text = (
        _environment()
        .get_template(template)
        .render(
            drawn=charts,
            style="".join(map(_asset, styles)),
            script="".join(map(_asset, scripts)),
            vega=_vega(),
            version=__version__,
            written=datetime.datetime.now(datetime.UTC).date().isoformat(),
            **told,
        )
    )
    with atomic_file(path) as partial:
        partial.write_text(text, "utf-8")
    return path


def draw(panels: Sequence[tuple[Panel, int | None]], folder: Path) -> dict[str, Drawn]:
    """Every chart by name, written as SVG and PNG into ``folder`` on the way.

    Args:
        panels: charts, and how many pixels wide their files are; in the page a chart is as wide as its place. None:
            as wide as its own parts make it, there and here.
    """
    drawn: dict[str, Drawn] = {}
    with bar("Drawing charts", len(panels)) as advance:
        for part, width in panels:
            if part.name in drawn:
                raise InputError(f"two charts of the report are both called {part.name}")
            drawn[part.name] = _draw_one(part, width, folder)
            advance(1)
    return drawn


def _draw_one(part: Panel, width: int | None, folder: Path) -> Drawn:
    spec = specification(part.chart)
    fixed = spec | {"background": "white", "padding": 8}
    # A picture of facets has very many marks, and not each needs a description.
    fixed |= {"config": spec["config"] | {"aria": False}} if width is None else {"width": width}
    svg = vl_convert.vegalite_to_svg(fixed, vl_version=VEGA_LITE)
    with atomic_file(folder / f"{part.name}.svg") as partial:
        partial.write_text(svg, "utf-8")
    with atomic_file(folder / f"{part.name}.png") as partial:
        partial.write_bytes(vl_convert.svg_to_png(svg, scale=PNG_SCALE))
    return Drawn(
        part.name,
        part.heading,
        spec["description"],
        _columnar(spec) if width is None else spec | {"width": "container"},
        f"data:image/svg+xml;base64,{base64.b64encode(svg.encode('utf-8')).decode('ascii')}",
    )


def _columnar(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification with each data set's names told once; ``charts.js`` makes rows of it again."""
    sets = {
        name: {"columns": list(rows[0]), "rows": [list(row.values()) for row in rows]} if rows else []
        for name, rows in spec["datasets"].items()
    }
    return spec | {"datasets": sets}


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
