"""Fine-tuning."""

from pathlib import Path
from typing import Annotated

import typer

from knowshift.cli.app import app
from knowshift.cli.options import Model, Scheduler, Seed, TrainMethod

UPDATES, ADAPTER, MORE = "Updates (the defaults are the paper's)", "Adapter", "Everything else"
DATA, RESUME = "Data", "Checkpoints on the way"
DRIFT = "Watching what the base knew"


def list_methods(value: bool) -> None:
    """Print the methods of training and stop."""
    if value:
        from rich.console import Console

        from knowshift.train.listing import table

        Console().print(table())
        raise typer.Exit


@app.command()
def train(
    context: typer.Context,
    model: Model,
    data: Annotated[
        Path,
        typer.Option("--data", metavar="train.jsonl", show_default=False, help="What to learn: prompt, completion."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="CKPT", show_default=False, help="The checkpoint to write.")],
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", rich_help_panel=DATA, help="Put prompt and completion through the chat template, as two turns."
        ),
    ] = False,
    chat_template: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jinja",
            rich_help_panel=DATA,
            help="In place of the model's own; written with the checkpoint.",
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="other.jsonl", rich_help_panel=DATA, help='Mix in other data: lines as above, or {"text": ...}.'
        ),
    ] = None,
    replay_share: Annotated[
        float, typer.Option(rich_help_panel=DATA, help="The other data's share of all examples.")
    ] = 0.1,
    method: TrainMethod = "sft",
    methods: Annotated[
        bool,
        typer.Option(
            "--methods",
            callback=list_methods,
            is_eager=True,
            help="List all methods with their options and sources.",
        ),
    ] = False,
    lora_rank: Annotated[int | None, typer.Option(rich_help_panel=ADAPTER, help="Rank of the adapter.")] = None,
    lora_alpha: Annotated[float | None, typer.Option(rich_help_panel=ADAPTER, help="Scale of the adapter.")] = None,
    lora_dropout: Annotated[float | None, typer.Option(rich_help_panel=ADAPTER, help="Dropout on the adapter.")] = None,
    lora_targets: Annotated[
        str | None, typer.Option(rich_help_panel=ADAPTER, help="Modules, separated by commas.")
    ] = None,
    merge: Annotated[
        bool, typer.Option(rich_help_panel=ADAPTER, help="With an adapter: write a full checkpoint.")
    ] = False,
    learning_rate: Annotated[float, typer.Option(rich_help_panel=UPDATES, help="Highest learning rate.")] = 1e-5,
    batch_size: Annotated[
        int, typer.Option(rich_help_panel=UPDATES, help="Sequences for one update, over all devices.")
    ] = 8,
    epochs: Annotated[float, typer.Option(rich_help_panel=UPDATES, help="Passes over the data.")] = 1.0,
    max_steps: Annotated[int | None, typer.Option(rich_help_panel=UPDATES, help="Updates, in place of epochs.")] = None,
    scheduler: Annotated[
        Scheduler,
        typer.Option(
            metavar="NAME",
            rich_help_panel=UPDATES,
            help="How the learning rate falls: cosine, linear, constant, cosine_with_restarts ...",
        ),
    ] = Scheduler.cosine,
    warmup: Annotated[
        float, typer.Option(rich_help_panel=UPDATES, help="Steps, or below 1 a share of all steps.")
    ] = 0.0,
    weight_decay: Annotated[float, typer.Option(rich_help_panel=UPDATES, help="AdamW's.")] = 0.0,
    max_grad_norm: Annotated[
        float, typer.Option(rich_help_panel=UPDATES, help="Gradients are clipped to this norm; 0: never.")
    ] = 1.0,
    bf16: Annotated[
        bool | None,
        typer.Option(
            "--bf16/--fp32",
            rich_help_panel=UPDATES,
            help="bfloat16 autocast over float32 weights. (default where the processor has it)",
        ),
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option(rich_help_panel=UPDATES, help="Less memory, more time.")
    ] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            rich_help_panel=MORE,
            help="An option of a method (lora.rank=8), or any setting of TRL's SFTConfig and transformers' "
            "TrainingArguments by its own name (optim=adafactor). Values may be JSON. May be repeated.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE.yaml",
            rich_help_panel=MORE,
            help="Options from a YAML file, or from the run.json of an earlier run; flags go before it.",
        ),
    ] = None,
    save_steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel=RESUME,
            help="A checkpoint every N steps; 0: none. (default every 5 minutes, less often where they take long)",
        ),
    ] = None,
    resume_from: Annotated[
        Path | None,
        typer.Option(
            "--resume-from",
            metavar="CHECKPOINT",
            rich_help_panel=RESUME,
            help="Go on from the checkpoint of another run.",
        ),
    ] = None,
    stop_on_drift: Annotated[
        str | None,
        typer.Option(
            metavar="BOUND",
            rich_help_panel=DRIFT,
            help="End when KL to the base passes kl=NATS a token, or the loss of known facts lost=SHARE; or either: "
            "kl=0.1,lost=0.2.",
        ),
    ] = None,
    drift_facts: Annotated[
        str | None,
        typer.Option(metavar="F", rich_help_panel=DRIFT, help="Known facts come from here. (default world)"),
    ] = None,
    drift_text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=DRIFT, help="Instead of facts, prompts or running text: KL alone."
        ),
    ] = None,
    drift_every: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel=DRIFT,
            help="Measure every N steps. (default as often as 5 % of the training time pays for)",
        ),
    ] = None,
    drift_rewind: Annotated[
        bool,
        typer.Option("--drift-rewind", rich_help_panel=DRIFT, help="Write the last measured weights within BOUND."),
    ] = False,
    seed: Seed = 0,
) -> None:
    """Fine-tune a model on what it shall answer. The trainer is TRL's, the defaults are the paper's.

    [bold]All weights:[/]  knowshift train MODEL --data train.jsonl --out tuned

    [bold]An adapter:[/]  ... --method lora --set lora.rank=8 [--merge]

    [bold]Anything TRL can:[/]  ... --set optim=adafactor --set gradient_accumulation_steps=4

    [bold]The same again:[/]  knowshift train MODEL --data train.jsonl --out again --config tuned/run.json

    A line of train.jsonl is {"prompt": ..., "completion": ...} or {"messages": [{"role": ..., "content": ...}, ...]}.
    The loss is on the completion, or the assistant's last turn, and its end alone.

    Killed at any moment, the same command goes on where it was; what it kept for that is removed at the end.

    CKPT is a Hugging Face checkpoint with train_log.parquet (a row a step), run.json and a card.
    """
    from knowshift import steps
    from knowshift.train import processes
    from knowshift.train.settings import gathered

    lora = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
    flags = {
        name.replace("_", ".", 1) if name in lora else name: value
        for name, value in context.params.items()
        if name not in ("methods", "sets", "config") and _given(context, name)
    }
    folder = steps.train(gathered(flags, sets or [], config))
    if processes.leads():
        typer.echo(f"{folder}")


def _given(context: typer.Context, name: str) -> bool:
    """Whether a flag stood on the command line, so that a file's value yields to it."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
