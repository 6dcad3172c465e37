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
    Facts,
    Form,
    Limit,
    MasteryRun,
    Mode,
    Model,
    Out,
    Seed,
    Split,
    Tuned,
    tell,
)


@app.command()
def eval(
    model: Model,
    facts: Facts,
    out: Out,
    mastery: MasteryRun = None,
    form: Annotated[Form, typer.Option(help="How the question is put.")] = Form.trained,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 16,
    split: Split = None,
    drop_overlaps: DropOverlaps = False,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Closed-book accuracy, greedy, by level and domain, with 95 % intervals."""
    from knowshift import steps, summaries

    notes: list[str] = []
    metrics = steps.evaluate(
        model,
        facts,
        out,
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
