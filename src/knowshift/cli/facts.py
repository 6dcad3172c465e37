"""Fact sets: what there is, the public one fetched, and any of them as JSONL."""

from pathlib import Path
from typing import Annotated

import typer

from knowshift.cli.app import app
from knowshift.cli.options import FACTS, DropOverlaps, Split, tell

facts_app = typer.Typer(no_args_is_help=True, help="The fact sets that knowshift knows, and facts of your own.")
app.add_typer(facts_app, name="facts")


@facts_app.command("list")
def facts_list() -> None:
    """The fact sets with their topics and splits: the embedded one, and EntityQuestions once it is fetched."""
    from knowshift.facts.fetch import place
    from knowshift.facts.sources import EMBEDDED, ENTITYQUESTIONS, SPLITS, read_facts

    fetched = place().is_file()
    for name in (*EMBEDDED, *([ENTITYQUESTIONS] if fetched else [])):
        facts = read_facts(name)
        typer.echo(f"{name}: {len(facts)} facts" + (f" ({place()})" if name == ENTITYQUESTIONS else ""))
        for topic in sorted({fact.topic for fact in facts}):
            own = [fact for fact in facts if fact.topic == topic]
            splits = ", ".join(f"{sum(fact.split == split for fact in own)} {split}" for split in SPLITS)
            typer.echo(f"  {topic:32} {own[0].domain:4} {splits}")
    if not fetched:
        typer.echo(
            f"{ENTITYQUESTIONS}: not fetched (knowshift facts fetch {ENTITYQUESTIONS}, "
            f"or name a copy: {ENTITYQUESTIONS}:PATH)"
        )


@facts_app.command("fetch")
def facts_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="entityquestions.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", show_default=False, help="A file name; default the cache.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", show_default=False, help="Another address of the archive.")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", show_default=False, help="What the file's SHA-256 must be.")
    ] = None,
) -> None:
    """Download a public fact set and check what it says; an interrupted download goes on where it was."""
    from knowshift.facts.fetch import fetch

    got = fetch(name, out, url=url, sha256=sha256)
    typer.echo(f"{got.path}: {got.rows} questions as published{'' if got.new else ', there already'}")
    typer.echo(f"SHA-256 {got.sha256}")
    typer.echo(f"use it as --facts {name}" + (f":{got.path}" if out else ""))


@facts_app.command("export")
def facts_export(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help=FACTS)],
    out: Annotated[Path, typer.Option("--out", metavar="F.jsonl", show_default=False)],
    split: Split = None,
    drop_overlaps: DropOverlaps = False,
) -> None:
    """Write a fact set as JSONL."""
    from knowshift.facts.fact import write_jsonl
    from knowshift.facts.sources import read_facts

    notes: list[str] = []
    facts = read_facts(name, split=split, drop_overlaps=drop_overlaps, notice=notes.append)
    write_jsonl(out, (fact.to_json() for fact in facts))
    typer.echo(f"{out}: {len(facts)} facts")
    tell(notes)
