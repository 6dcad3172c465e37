"""What does the base model know, and what should I train on?"""

from pathlib import Path
from typing import Annotated

import typer

from knowshift.cli.app import app
from knowshift.cli.options import DropOverlaps, Engine, Facts, Limit, Model, Out, Seed, Split, tell


@app.command()
def mastery(
    model: Model,
    facts: Facts,
    out: Out,
    templates: Annotated[int, typer.Option(min=1, max=21, help="Phrasings asked for each fact.")] = 21,
    samples: Annotated[int, typer.Option(min=1, help="Completions drawn for each phrasing.")] = 10,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest completion.")] = 32,
    engine: Annotated[Engine, typer.Option(help="What runs the model.")] = Engine.transformers,
    limit: Limit = None,
    split: Split = None,
    drop_overlaps: DropOverlaps = False,
    keep_samples: Annotated[bool, typer.Option("--keep-samples", help="Also write samples.parquet.")] = False,
    case_sensitive: Annotated[
        bool, typer.Option("--case-sensitive", help="An answer in other capitals does not count.")
    ] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the model's chat template.")] = False,
    slick: Annotated[bool, typer.Option(help="Also ask greedily, for the SliCK classes.")] = True,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="DIR", help="Where draws are kept; runs may share it. (default OUT/store)"),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Continuations decoded together. (default fitted to memory)")
    ] = None,
    seed: Seed = 0,
) -> None:
    """How well does a model know each fact? Ask with many phrasings, many times, and count."""
    from knowshift import steps
    from knowshift.mastery.score import MasteryOptions
    from knowshift.mastery.select import count_levels

    options = MasteryOptions(
        templates=templates,
        samples=samples,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
        case_sensitive=case_sensitive,
        chat=chat,
        slick=slick,
        rows=rows,
    )
    notes: list[str] = []
    table = steps.mastery(
        model,
        facts,
        out,
        options,
        engine=engine.value,
        split=split,
        limit=limit,
        keep_samples=keep_samples,
        store=store,
        drop_overlaps=drop_overlaps,
        notice=notes.append,
    )
    for level, count in count_levels(table).items():
        typer.echo(f"level {level}: {count} facts")
    tell(notes)


@app.command()
def select(
    run: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="A mastery run.")],
    level: Annotated[int, typer.Option(help="Mastery level, 0 to 4.", show_default=False)],
    size: Annotated[int, typer.Option(help="How many facts.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="train.jsonl", show_default=False)],
    split: Annotated[str, typer.Option(help="The split to choose from.")] = "train",
    seed: Seed = 0,
) -> None:
    """An SFT set of one mastery level: topics balanced, smaller sets part of larger ones."""
    from knowshift import steps

    chosen = steps.select_set(run, out, level=level, size=size, seed=seed, split=split)
    typer.echo(f"{out}: {chosen.height} facts of level {level} over {chosen['topic'].n_unique()} topics")
