"""The page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from knowshift.cli.app import app


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="A demo's run folder.")],
) -> None:
    """Build report.html and its charts again from the files of a run."""
    from knowshift.report import build

    typer.echo(f"Open {build(run)}")
