"""The application that command files register with, and what stands before a command."""

from typing import Annotated

import typer

from knowshift import __version__

app = typer.Typer(
    name="knowshift",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""What did your language model know, what did fine-tuning do to it, and how do you get it back?

    [bold]1.[/] What does the base model know?  [cyan]mastery[/]
    [bold]2.[/] What should I train on?  [cyan]select, train[/]
    [bold]3.[/] What did training change?  [cyan]eval, transitions, drift, diff[/]
    [bold]4.[/] How do I get it back?  [cyan]repair, restore, patch, merge[/]

    [cyan]knowshift demo --out demo[/] walks through all four on a real model.
    MODEL, BASE and TUNED are a folder, a hub id, a PEFT adapter folder, or [cyan]smollm2[/].""",
)


def version(value: bool) -> None:
    """Print the version and stop."""
    if value:
        typer.echo(f"knowshift {__version__}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""
