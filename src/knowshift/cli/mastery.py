"""What does the base model know, and what should I train on?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from knowshift.cli.app import app
from knowshift.cli.options import DropOverlaps, Engine, Facts, Limit, Model, Out, Seed, Split, TensorParallel, tell
from knowshift.errors import InputError
from knowshift.mastery.levels import Curriculum, read_levels

PANEL = "How facts are asked with --until (default as in DIR, else as in mastery)"
FROM_RUN = "Needed if DIR holds no run yet."


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
    tensor_parallel: TensorParallel = 1,
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
        int | None, typer.Option(min=1, help="Continuations decoded together. (default the engine's own)")
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
        tensor_parallel=tensor_parallel,
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
    out: Annotated[Path, typer.Option("--out", metavar="train.jsonl", show_default=False)],
    level: Annotated[
        str | None,
        typer.Option(metavar="L", help="Mastery level, 0 to 4; 1-3 or 0,2 for several, as they occur."),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(metavar="L:PARTS,...", help="Levels in given shares: 0:0.5,2:0.5; 0-4 is a fifth of each."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(metavar="N", help="How many facts, of those scored.", show_default=False)
    ] = None,
    until: Annotated[
        int | None,
        typer.Option(metavar="N", help="Score facts until N are found; DIR is gone on with, or begun.", min=1),
    ] = None,
    split: Annotated[str, typer.Option(metavar="S", help="The split to choose from.")] = "train",
    domain: Annotated[str, typer.Option(metavar="id|ood", help="The domain to choose from.")] = "id",
    curriculum: Annotated[
        Curriculum | None, typer.Option(help="Sort the lines by level, the best or the least known first.")
    ] = None,
    seed: Seed = 0,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help=FROM_RUN, rich_help_panel=PANEL)] = None,
    facts: Annotated[str | None, typer.Option("--facts", metavar="F", help=FROM_RUN, rich_help_panel=PANEL)] = None,
    templates: Annotated[
        int | None, typer.Option(min=1, max=21, help="Phrasings asked for each fact.", rich_help_panel=PANEL)
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Completions drawn for each phrasing.", rich_help_panel=PANEL)
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.", rich_help_panel=PANEL)] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest completion.", rich_help_panel=PANEL)
    ] = None,
    engine: Annotated[Engine | None, typer.Option(help="What runs the model.", rich_help_panel=PANEL)] = None,
    tensor_parallel: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="With vllm: devices that share each layer.", rich_help_panel=PANEL),
    ] = None,
    drop_overlaps: Annotated[
        bool | None,
        typer.Option("--drop-overlaps", help="Leave out of train what test asks too.", rich_help_panel=PANEL),
    ] = None,
    case_sensitive: Annotated[
        bool | None,
        typer.Option("--case-sensitive", help="An answer in other capitals does not count.", rich_help_panel=PANEL),
    ] = None,
    chat: Annotated[
        bool | None, typer.Option("--chat", help="Ask through the model's chat template.", rich_help_panel=PANEL)
    ] = None,
    slick: Annotated[bool | None, typer.Option(help="Also ask greedily.", rich_help_panel=PANEL)] = None,
    store: Annotated[
        Path | None, typer.Option("--store", metavar="DIR", help="Where draws are kept.", rich_help_panel=PANEL)
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Continuations decoded together.", rich_help_panel=PANEL)
    ] = None,
) -> None:
    """An SFT set by mastery level: topics balanced, smaller sets part of larger ones.

    --level takes one level, or several in the shares in which they occur; --mix takes of each level its share, as
    exactly as whole facts can, and its part of a level is the set --level would give. Lines come in turns of topics
    and levels; --curriculum sorts them, for train --set train_sampling_strategy=sequential, which keeps a file's order.

    With --until facts are scored only until enough of each level are found; the set is the one that scoring all of
    them would give. Settings of mastery are those of the run in DIR, where it holds one.
    """
    from knowshift import steps
    from knowshift.mastery.mix import read_mix
    from knowshift.mastery.select import count_levels

    if (level is None) == (mix is None):
        raise InputError("give one of --level L and --mix L:PARTS,...")
    shares = None if mix is None else read_mix(mix)
    levels = None if level is None else read_levels(level)
    if curriculum and len(shares or levels or ()) == 1:
        raise InputError("--curriculum has no effect on a set of one level")
    what: dict[str, Any] = {"level": levels[0] if levels and len(levels) == 1 else levels, "mix": shares}
    what |= {"seed": seed, "split": split, "domain": domain, "curriculum": curriculum}

    asked: dict[str, Any] = {
        "model": model,
        "facts": facts,
        "templates": templates,
        "samples": samples,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "engine": engine and engine.value,
        "tensor_parallel": tensor_parallel,
        "drop_overlaps": drop_overlaps,
        "case_sensitive": case_sensitive,
        "chat": chat,
        "slick": slick,
        "store": store,
        "rows": rows,
    }
    notes: list[str] = []
    if until is None:
        idle = next((name for name, value in asked.items() if value is not None), None)
        if idle:
            raise InputError(f"--{idle.replace('_', '-')} has no effect without --until")
        if size is None:
            raise InputError("give --size N (of the facts scored) or --until N (score until so many are found)")
        chosen = steps.select_set(run, out, size=size, **what)
    elif size is not None:
        raise InputError("--size and --until exclude each other")
    else:
        asked["source"] = asked.pop("facts")
        chosen, found = steps.select_until(run, out, until=until, notice=notes.append, **what, **asked)
        for part, outcome in found.items():
            for line in outcome.lines(part):
                typer.echo(line)
    held = {name: count for name, count in count_levels(chosen).items() if count}
    of = ", ".join(f"level {name}" + (f": {count}" if len(held) > 1 else "") for name, count in held.items())
    typer.echo(f"{out}: {chosen.height} facts of {of} over {chosen['topic'].n_unique()} topics")
    tell(notes)
