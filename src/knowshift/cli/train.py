"""Fine-tuning."""

from pathlib import Path
from typing import Annotated

import typer

from knowshift.cli.app import app
from knowshift.cli.options import Model, Scheduler, Seed, TrainMethod


@app.command()
def train(
    model: Model,
    data: Annotated[
        Path, typer.Option("--data", metavar="train.jsonl", show_default=False, help="prompt, completion.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="CKPT", show_default=False, help="The checkpoint to write.")],
    method: TrainMethod = "sft",
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-5,
    batch_size: Annotated[int, typer.Option(help="Sequences for one update.")] = 8,
    epochs: Annotated[float, typer.Option(help="Passes over the data.")] = 1.0,
    max_steps: Annotated[int | None, typer.Option(help="Updates, in place of epochs.")] = None,
    scheduler: Annotated[Scheduler, typer.Option(help="How the learning rate falls.")] = Scheduler.cosine,
    warmup: Annotated[float, typer.Option(help="Steps, or below 1 a share of all steps.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="AdamW's.")] = 0.0,
    max_grad_norm: Annotated[float, typer.Option(help="Gradients are clipped to this norm; 0: never.")] = 1.0,
    bf16: Annotated[
        bool | None, typer.Option("--bf16/--fp32", help="bfloat16 autocast. (default where the processor has it)")
    ] = None,
    gradient_checkpointing: Annotated[bool, typer.Option(help="Less memory, more time.")] = False,
    lora_rank: Annotated[int | None, typer.Option(help="Rank of the adapter.")] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="Scale of the adapter.")] = None,
    lora_dropout: Annotated[float | None, typer.Option(help="Dropout on the adapter.")] = None,
    lora_targets: Annotated[str | None, typer.Option(help="Modules, separated by commas.")] = None,
    merge: Annotated[bool, typer.Option(help="With lora: write a full checkpoint.")] = False,
    seed: Seed = 0,
) -> None:
    """Fine-tune on prompt/completion pairs with TRL; the defaults are the paper's."""
    from knowshift import steps
    from knowshift.train.options import TrainOptions

    lora = {"rank": lora_rank, "alpha": lora_alpha, "dropout": lora_dropout, "targets": lora_targets}
    folder = steps.train(
        TrainOptions(
            model=model,
            data=data,
            out=out,
            method=method,
            learning_rate=learning_rate,
            batch_size=batch_size,
            epochs=epochs,
            max_steps=max_steps,
            scheduler=scheduler.value,
            warmup=warmup,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            seed=seed,
            bf16=bf16,
            gradient_checkpointing=gradient_checkpointing,
            merge=merge,
            set={f"lora.{name}": value for name, value in lora.items() if value is not None},
        )
    )
    typer.echo(f"{folder}")
