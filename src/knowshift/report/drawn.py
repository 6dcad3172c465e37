"""Charts of a diff as pictures beside its tables: concentration, squared update, layer by module."""

from pathlib import Path

import polars as pl

from knowshift.errors import InputError
from knowshift.files import atomic_file

_WIDTH, _SCALE = 640, 2
_MODEL = "tuned"


def draw_diff(concentration: pl.DataFrame, modules: pl.DataFrame, out: Path, fraction: float = 0.2) -> list[Path]:
    """Write ``concentration``, ``energy`` and ``modules`` as SVG and PNG into ``out/charts``.

    Args:
        concentration, modules: the tables of a diff.
        fraction: the heat map shows the listed fraction nearest to it.

    Raises:
        InputError: if the packages that draw are not installed.
    """
    try:
        import altair  # noqa: F401
        import vl_convert
    except ImportError as error:
        raise InputError("--charts needs more packages: pip install 'knowshift[report]'") from error
    from knowshift.report import curves, tables
    from knowshift.report.theme import model_colours, specification

    (colour,) = model_colours([_MODEL])
    energy = concentration.select("fraction", "energy_share", model=pl.lit(_MODEL))
    charts = {
        "concentration": curves.concentration(concentration, _MODEL, colour),
        "energy": curves.energy(energy, {_MODEL: "Largest relative change first"}),
    }
    if part := tables.enrichment(modules, fraction):
        charts["modules"] = curves.enrichment(part[1], _MODEL)
    written = []
    for name, chart in charts.items():
        spec = specification(chart) | {"width": _WIDTH, "background": "white", "padding": 8}
        svg = vl_convert.vegalite_to_svg(spec)
        for path, data in (
            (out / "charts" / f"{name}.svg", svg.encode("utf-8")),
            (out / "charts" / f"{name}.png", vl_convert.svg_to_png(svg, scale=_SCALE)),
        ):
            with atomic_file(path) as partial:
                partial.write_bytes(data)
            written.append(path)
    return written
