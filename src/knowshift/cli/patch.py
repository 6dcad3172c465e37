"""Restorations as patches: put one on, take it off, see what it is."""

import json
from pathlib import Path
from typing import Annotated

import typer

from knowshift.cli.app import app
from knowshift.cli.options import Model, Out

patch_app = typer.Typer(no_args_is_help=True, help="Reversible patches, as restore --patch writes them.")
app.add_typer(patch_app, name="patch")

File = Annotated[Path, typer.Argument(metavar="PATCH", show_default=False, help="What restore --patch wrote.")]


@patch_app.command("apply")
def patch_apply(patch: File, model: Model, out: Out) -> None:
    """Make the restored checkpoint from the tuned one: the same weights as restore writes, without the base."""
    from knowshift import steps

    typer.echo(f"{steps.patch_apply(patch, model, out)}")


@patch_app.command("revert")
def patch_revert(patch: File, model: Model, out: Out) -> None:
    """Make the tuned checkpoint again from the restored one, bit for bit."""
    from knowshift import steps

    typer.echo(f"{steps.patch_revert(patch, model, out)}")


@patch_app.command("show")
def patch_show(
    patch: File, as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False
) -> None:
    """From which pair a patch is, how much it changes, and where."""
    from knowshift.weights.patch import describe, render

    facts = describe(patch)
    typer.echo(json.dumps(facts, indent=2) if as_json else render(facts))
