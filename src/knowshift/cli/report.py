"""The page of a run, of a study, or of studies side by side."""

from pathlib import Path
from typing import Annotated

import typer

from knowshift.cli.app import app


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", show_default=False, help="A demo's run folder, or one or more studies'."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(show_default=False, help="Where the page of several studies goes. (default: compared)"),
    ] = None,
    latex: Annotated[bool, typer.Option("--latex", help="Write a study's tables in LaTeX too.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write a study's tables in Markdown too.")] = False,
) -> None:
    """Build report.html and its charts again from the files of a run; of several studies, one page side by side.

    A study's tables are made again from its cells, where they are at hand.
    """
    from knowshift.report import make

    typer.echo(f"Open {make(runs, out, latex=latex, markdown=markdown)}")
