"""What changed in answers and tokens?"""

from pathlib import Path
from typing import Annotated

import typer

from knowshift.cli.app import app
from knowshift.cli.options import (
    FACTS,
    Base,
    DropOverlaps,
    Dtype,
    Form,
    Limit,
    MasteryRun,
    Matching,
    Mode,
    Model,
    OptionalBase,
    Out,
    Seed,
    Split,
    Tuned,
    tell,
)


@app.command()
def eval(
    model: Model,
    out: Out,
    facts: Annotated[str | None, typer.Option("--facts", metavar="F", show_default=False, help=FACTS)] = None,
    base: OptionalBase = None,
    mastery: MasteryRun = None,
    form: Annotated[Form, typer.Option(help="How the question is put.")] = Form.trained,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 16,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="T", help="Tasks of lm-evaluation-harness, with commas between, such as gsm8k."),
    ] = None,
    tasks_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="YAML files of your own tasks.")] = None,
    split: Split = None,
    drop_overlaps: DropOverlaps = False,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Closed-book accuracy, greedy, by level and domain, with 95 % intervals; other abilities by --tasks.

    Of each task, --limit takes the first N items.
    """
    from knowshift import steps, summaries

    notes: list[str] = []
    metrics = steps.evaluate(
        model,
        facts,
        out,
        base=base,
        tasks=[] if tasks is None else [name.strip() for name in tasks.split(",")],
        tasks_dir=tasks_dir,
        mastery_run=mastery,
        form=form.value,
        max_new_tokens=max_new_tokens,
        split=split,
        limit=limit,
        drop_overlaps=drop_overlaps,
        notice=notes.append,
        seed=seed,
    )
    typer.echo(summaries.accuracy(metrics))
    tell(notes)


@app.command()
def transitions(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", show_default=False, help="An eval run, or its table.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", show_default=False, help="Another, of the same facts.")],
    out: Out,
    match: Annotated[Matching, typer.Option(help="When an answer counts as right.")] = Matching.contains,
    show: Annotated[int, typer.Option(metavar="N", min=0, help="Print the first N facts that were lost.")] = 10,
    seed: Seed = 0,
) -> None:
    """Which facts were kept, lost and gained between any two models?"""
    from knowshift import steps, summaries
    from knowshift.measure.transitions import named

    table, metrics = steps.transitions(before, after, out, match=match.value, seed=seed)
    typer.echo(summaries.transitions(metrics, match.value))
    for line in named(table, "lost", show):
        typer.echo(f"lost: {line}")


@app.command()
def drift(
    base: Base,
    tuned: Tuned,
    out: Out,
    facts: Annotated[str | None, typer.Option("--facts", metavar="F", show_default=False, help=FACTS)] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of facts, running text: any text file, or JSONL of text, messages, or prompt and completion.",
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="With --text: tokens read at once. (default the context)")
    ] = None,
    mode: Annotated[Mode, typer.Option(help="teacher: gold answers, whole vocabulary. paper: top 10.")] = Mode.teacher,
    dtype: Annotated[Dtype, typer.Option(help="Number type; float32 resolves drifts below 0.01 nats.")] = Dtype.auto,
    compile: Annotated[bool, typer.Option("--compile", help="Run the models through torch.compile.")] = False,
    mastery: MasteryRun = None,
    split: Split = None,
    drop_overlaps: DropOverlaps = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Only N facts, or windows of a text, drawn at random."),
    ] = None,
    seed: Seed = 0,
) -> None:
    """How far did the next-token distributions move? KL between tuned and base."""
    from knowshift import steps, summaries

    notes: list[str] = []
    metrics = steps.drift(
        base,
        tuned,
        facts,
        out,
        text=text,
        window=window,
        mode=mode.value,
        dtype=dtype.value,
        compile=compile,
        mastery_run=mastery,
        split=split,
        limit=limit,
        drop_overlaps=drop_overlaps,
        notice=notes.append,
        seed=seed,
    )
    typer.echo(summaries.drift(metrics))
    tell(notes)
