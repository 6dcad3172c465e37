"""The whole chain in one command."""

from typing import Annotated, Any

import typer

from knowshift.cli.app import app
from knowshift.cli.options import Out, Seed, TrainMethod


@app.command()
def demo(
    out: Out,
    model: Annotated[str, typer.Option(help="The base model.")] = "smollm2",
    facts: Annotated[str, typer.Option(help="world, or a JSONL file with splits and domains.")] = "world",
    method: TrainMethod = "sft",
    templates: Annotated[int | None, typer.Option(help="Phrasings for each fact. (default 6; paper: 21)")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples for each phrasing. (default 4; paper: 10)")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the samples. (default 0.7, the paper's)")] = None,
    mastery_new_tokens: Annotated[int | None, typer.Option(help="Longest sample. (default 8; paper: 32)")] = None,
    answer_new_tokens: Annotated[int | None, typer.Option(help="Longest answer. (default 12; paper: 16)")] = None,
    train_facts: Annotated[int | None, typer.Option(help="In-domain train facts scored. (default 800)")] = None,
    validation_facts: Annotated[int | None, typer.Option(help="Validation facts per domain. (default 125)")] = None,
    test_facts: Annotated[int | None, typer.Option(help="Test facts per domain. (default 250)")] = None,
    low_size: Annotated[int | None, typer.Option(help="Size of the low-mastery set. (default 360)")] = None,
    middle_size: Annotated[int | None, typer.Option(help="Size of the middle-mastery set. (default 60)")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest. (default 0.0002; paper: 1e-5)")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences for one update. (default 8, the paper's)")] = None,
    seed: Seed = 0,
) -> None:
    """The whole chain on a real model, ending in report.html. Killed, it goes on where it was."""
    from knowshift.study.demo import DemoOptions, run

    changed = {
        "templates": templates,
        "samples": samples,
        "temperature": temperature,
        "mastery_new_tokens": mastery_new_tokens,
        "answer_new_tokens": answer_new_tokens,
        "train_facts": train_facts,
        "validation_facts": validation_facts,
        "test_facts": test_facts,
        "low_size": low_size,
        "middle_size": middle_size,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
    }
    given: dict[str, Any] = {name: value for name, value in changed.items() if value is not None}
    page = run(out, DemoOptions(model=model, facts=facts, method=method, seed=seed, **given))
    typer.echo(f"Open {page}")
