"""How do I get back what fine-tuning forgot?"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from knowshift.cli.app import app
from knowshift.cli.options import FACTS, Base, Out, Seed, Tuned


class Metric(StrEnum):
    """How an answer to a prompt of the task is scored."""

    exact = "exact"
    contains = "contains"
    log_likelihood = "log-likelihood"


@app.command()
def repair(
    base: Base,
    tuned: Tuned,
    knowledge: Annotated[str, typer.Option("--knowledge", metavar="F", show_default=False, help=FACTS)],
    task: Annotated[
        Path,
        typer.Option(
            "--task",
            metavar="T.jsonl",
            show_default=False,
            help="Prompts of your task with the completions that are right, none of which was trained on.",
        ),
    ],
    out: Out,
    task_metric: Annotated[
        Metric, typer.Option(help="The answer is the completion, has it in it, or: how likely is the completion?")
    ] = Metric.exact,
    max_task_drop: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            help="How much of the task's mean score may go. (default one standard error of the tuned model's)",
        ),
    ] = None,
    budget: Annotated[float, typer.Option(metavar="MINUTES", help="Of the whole, about.")] = 10,
    seed: Seed = 0,
) -> None:
    """Find the change of weights that gives back what was forgotten and keeps the task; prove it on held-out data.

    The same command goes on with a search that was interrupted, or that another budget ended.
    """
    from knowshift import steps, summaries
    from knowshift.repair.run import RepairOptions

    options = RepairOptions(
        knowledge=knowledge,
        task=task,
        task_metric=task_metric.value,
        max_task_drop=max_task_drop,
        budget=budget,
        seed=seed,
    )
    typer.echo(summaries.repair(steps.repair(base, tuned, out, options), out))
