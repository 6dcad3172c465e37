"""Fact sets: what there is, and as JSONL."""

from pathlib import Path
from typing import Annotated

import typer

from knowshift.cli.app import app
from knowshift.cli.options import Split

facts_app = typer.Typer(no_args_is_help=True, help="The fact sets that come with knowshift.")
app.add_typer(facts_app, name="facts")


@facts_app.command("list")
def facts_list() -> None:
    """The embedded fact sets with their topics and splits."""
    from knowshift.facts.sources import EMBEDDED, SPLITS, read_facts

    for name in EMBEDDED:
        facts = read_facts(name)
        typer.echo(f"{name}: {len(facts)} facts")
        for topic in sorted({fact.topic for fact in facts}):
            own = [fact for fact in facts if fact.topic == topic]
            splits = ", ".join(f"{sum(fact.split == split for fact in own)} {split}" for split in SPLITS)
            typer.echo(f"  {topic:32} {own[0].domain:4} {splits}")


@facts_app.command("export")
def facts_export(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="world, or a JSONL file.")],
    out: Annotated[Path, typer.Option("--out", metavar="F.jsonl", show_default=False)],
    split: Split = None,
) -> None:
    """Write a fact set as JSONL."""
    from knowshift.facts.fact import write_jsonl
    from knowshift.facts.sources import read_facts

    facts = read_facts(name, split=split)
    write_jsonl(out, (fact.to_json() for fact in facts))
    typer.echo(f"{out}: {len(facts)} facts")
