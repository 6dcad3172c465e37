"""A whole grid of models as one file."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from knowshift.cli.app import app
from knowshift.cli.options import Out

RUN = "run"


class PlanFirst(TyperGroup):
    """A group whose first word may be a plan: what is no sub-command is run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the hidden word ``run`` before arguments that begin with no sub-command."""
        named = [name for name in self.commands if name != RUN]
        if args and args[0] not in (*named, "-h", "--help"):
            args = [RUN, *args]
        return super().parse_args(ctx, args)


study_app = typer.Typer(
    cls=PlanFirst,
    no_args_is_help=True,
    subcommand_metavar="PLAN.yaml --out DIR | COMMAND",
    help="""A grid of models, sets, sizes, seeds and methods: trained, asked, compared and restored.

    [bold]Write a plan:[/]  knowshift study init --preset smoke plan.yaml

    [bold]What would it take?[/]  knowshift study plan.yaml --out DIR --dry-run

    [bold]Do it:[/]  knowshift study plan.yaml --out DIR [--workers N] [--executor local|ray]

    Killed at any moment, the same command goes on where it was; what is done is never done again. A plan called
    init is ./init. `knowshift study run --help` lists the options.""",
)
app.add_typer(study_app, name="study")


@study_app.command(RUN, hidden=True)
def study(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", show_default=False, help="What to do.")],
    out: Out,
    executor: Annotated[str, typer.Option(help="Where cells are done: local, or ray.")] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Cells at once. (default as processors, GPUs and memory allow)"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and estimate time, memory and disk; write nothing.")
    ] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Write the tables in LaTeX too.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write the tables in Markdown too.")] = False,
) -> None:
    """Do what a plan says; what is done already is not done again."""
    from knowshift.study.planfile import read_plan

    read = read_plan(plan)
    if dry_run:
        from knowshift.study.estimate import lines

        for line in lines(read, out, workers=workers):
            typer.echo(line)
        return
    from knowshift.study.export import FOLDER
    from knowshift.study.run import run

    table = run(read, out, name=executor, workers=workers, latex=latex, markdown=markdown)
    page = out / "report.html"
    drawn = f"page {page}" if page.is_file() else "no page, for want of knowshift[report]"
    done = (table["state"] == "done").sum()
    missing = (table["state"] == "missing").sum()
    typer.echo(
        f"{done} cells done; tables in {out / FOLDER}, {drawn}"
        + (f"; {missing} there cannot be (knowshift study status)" * bool(missing))
    )


@study_app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="The plan to write.")],
    preset: Annotated[str, typer.Option(help="What to begin with: smoke, small or paper.")] = "small",
) -> None:
    """Write a plan with every key there is, each explained."""
    from knowshift.study.planfile import write_commented

    write_commented(file, preset)
    typer.echo(f"{file}")


@study_app.command()
def status(
    run: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="A study's folder.")],
) -> None:
    """How far a study is: cells done, running, failed and waiting, and why."""
    from knowshift.study.run import status as read
    from knowshift.study.standing import lines

    for line in lines(read(run)):
        typer.echo(line)
