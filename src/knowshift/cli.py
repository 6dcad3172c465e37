"""The command line: parses, calls, prints. Everything else is imported when a command needs it."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from knowshift import __version__
from knowshift.errors import InputError
from knowshift.options import (
    Arithmetic,
    ArithmeticOption,
    Base,
    Dtype,
    Engine,
    Facts,
    Form,
    Fractions,
    Limit,
    MasteryRun,
    Method,
    Mode,
    Model,
    OptionalFractions,
    Order,
    Out,
    Rank,
    RankOption,
    Region,
    RegionOption,
    Rival,
    Scheduler,
    Seed,
    Share,
    Split,
    Tuned,
)

PAPER_FRACTIONS = ("0.01", "0.03", "0.05", "0.1", "0.2", "0.4", "0.6")

app = typer.Typer(
    name="knowshift",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""What did your language model know, what did fine-tuning do to it, and how do you get it back?

    [bold]1.[/] What does the base model know?  [cyan]mastery[/]
    [bold]2.[/] What should I train on?  [cyan]select, train[/]
    [bold]3.[/] What did training change?  [cyan]eval, drift, diff[/]
    [bold]4.[/] How do I get it back?  [cyan]restore, merge[/]

    [cyan]knowshift demo --out demo[/] walks through all four on a real model.
    MODEL, BASE and TUNED are a folder, a hub id, a PEFT adapter folder, or [cyan]smollm2[/].""",
)
facts_app = typer.Typer(no_args_is_help=True, help="The fact sets that come with knowshift.")
app.add_typer(facts_app, name="facts")


@app.command()
def demo(
    out: Out,
    model: Annotated[str, typer.Option(help="The base model.")] = "smollm2",
    facts: Annotated[str, typer.Option(help="world, or a JSONL file with splits and domains.")] = "world",
    method: Annotated[Method, typer.Option(help="Full fine-tuning, or LoRA.")] = Method.sft,
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
    page = run(out, DemoOptions(model=model, facts=facts, method=method.value, seed=seed, **given))
    typer.echo(f"Open {page}")


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
    keep_samples: Annotated[bool, typer.Option("--keep-samples", help="Also write samples.parquet.")] = False,
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
    )
    table = steps.mastery(
        model, facts, out, options, engine=engine.value, split=split, limit=limit, keep_samples=keep_samples
    )
    for level, count in count_levels(table).items():
        typer.echo(f"level {level}: {count} facts")


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


@app.command()
def train(
    model: Model,
    data: Annotated[
        Path, typer.Option("--data", metavar="train.jsonl", show_default=False, help="prompt, completion.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="CKPT", show_default=False, help="The checkpoint to write.")],
    method: Annotated[Method, typer.Option(help="Full fine-tuning, or LoRA.")] = Method.sft,
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
    lora_rank: Annotated[int, typer.Option(help="Rank of the adapter.")] = 16,
    lora_alpha: Annotated[float, typer.Option(help="Scale of the adapter.")] = 32.0,
    lora_dropout: Annotated[float, typer.Option(help="Dropout on the adapter.")] = 0.0,
    lora_targets: Annotated[str, typer.Option(help="Modules, separated by commas.")] = "all-linear",
    merge: Annotated[bool, typer.Option(help="With lora: write a full checkpoint.")] = False,
    seed: Seed = 0,
) -> None:
    """Fine-tune on prompt/completion pairs with TRL; the defaults are the paper's."""
    from knowshift import steps
    from knowshift.train.options import TrainOptions

    folder = steps.train(
        TrainOptions(
            model=model,
            data=data,
            out=out,
            method=method.value,
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
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            lora_targets=lora_targets,
            merge=merge,
        )
    )
    typer.echo(f"{folder}")


@app.command()
def eval(
    model: Model,
    facts: Facts,
    out: Out,
    mastery: MasteryRun = None,
    form: Annotated[Form, typer.Option(help="How the question is put.")] = Form.trained,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 16,
    split: Split = None,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Closed-book accuracy, greedy, by level and domain, with 95 % intervals."""
    from knowshift import steps, summaries

    metrics = steps.evaluate(
        model,
        facts,
        out,
        mastery_run=mastery,
        form=form.value,
        max_new_tokens=max_new_tokens,
        split=split,
        limit=limit,
        seed=seed,
    )
    typer.echo(summaries.accuracy(metrics))


@app.command()
def drift(
    base: Base,
    tuned: Tuned,
    facts: Facts,
    out: Out,
    mode: Annotated[Mode, typer.Option(help="teacher: gold answers, whole vocabulary. paper: top 10.")] = Mode.teacher,
    dtype: Annotated[Dtype, typer.Option(help="Number type; float32 resolves drifts below 0.01 nats.")] = Dtype.auto,
    mastery: MasteryRun = None,
    split: Split = None,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """How far did the next-token distributions move? KL between tuned and base."""
    from knowshift import steps, summaries

    metrics = steps.drift(
        base,
        tuned,
        facts,
        out,
        mode=mode.value,
        dtype=dtype.value,
        mastery_run=mastery,
        split=split,
        limit=limit,
        seed=seed,
    )
    typer.echo(summaries.drift(metrics))


@app.command()
def diff(
    base: Base,
    tuned: Tuned,
    out: Out,
    region: RegionOption = Region.blocks,
    arithmetic: ArithmeticOption = Arithmetic.float32,
    fraction: OptionalFractions = None,
    seed: Seed = 0,
) -> None:
    """How far did the weights move, where, and how concentrated is it, beside a no-training null?"""
    from knowshift import steps, summaries

    result = steps.diff(
        base,
        tuned,
        out,
        region=region.value,
        arithmetic=arithmetic.value,
        fractions=fraction or PAPER_FRACTIONS,
        seed=seed,
    )
    typer.echo(summaries.diff(result.metrics, result.concentration.filter(paper=True).row(0, named=True)))


@app.command()
def restore(
    base: Base,
    tuned: Tuned,
    fraction: Fractions,
    out: Out,
    rank: RankOption = Rank.relative,
    order: Annotated[Order, typer.Option(help="From which end of the ranking.")] = Order.top,
    region: RegionOption = Region.blocks,
    of: Annotated[
        Share, typer.Option(help="A share of all weights of the region, or of the changed ones.")
    ] = Share.all,
    arithmetic: ArithmeticOption = Arithmetic.float32,
    seed: Seed = 0,
) -> None:
    """Put the most changed weights back, bit for bit: one checkpoint folder per fraction."""
    from knowshift import steps

    folders = steps.restore(
        base,
        tuned,
        fraction,
        out,
        rank=rank.value,
        order=order.value,
        region=region.value,
        of=of.value,
        arithmetic=arithmetic.value,
        seed=seed,
    )
    for folder in folders:
        typer.echo(f"{folder}")


@app.command()
def merge(
    method: Annotated[
        Rival, typer.Argument(metavar="METHOD", show_default=False, help="interpolate, random, dare or ties-trim.")
    ],
    base: Base,
    tuned: Tuned,
    out: Out,
    alpha: Annotated[float | None, typer.Option(help="interpolate: base + alpha * (tuned - base).")] = None,
    removed_share: Annotated[
        float | None, typer.Option(help="interpolate: or the share of the squared update to remove.")
    ] = None,
    fraction: Annotated[float | None, typer.Option(help="random: share of the weights to restore.")] = None,
    drop: Annotated[float | None, typer.Option(help="dare: share of the update to drop before rescaling.")] = None,
    keep: Annotated[float | None, typer.Option(help="ties-trim: share of the weights that stay tuned.")] = None,
    region: RegionOption = Region.all,
    seed: Seed = 0,
) -> None:
    """Make a control or rival of restoration from the same two models."""
    from knowshift import steps

    folder = steps.merge(
        method.value,
        base,
        tuned,
        out,
        region=region.value,
        seed=seed,
        alpha=alpha,
        removed_share=removed_share,
        fraction=fraction,
        drop=drop,
        keep=keep,
    )
    typer.echo(f"{folder}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="A demo's run folder.")],
) -> None:
    """Build report.html and its charts again from the files of a run."""
    from knowshift.report import build

    typer.echo(f"Open {build(run)}")


def fail(message: str) -> int:
    """Print the one line a user reads, and return the exit status for bad input."""
    line = " ".join(message.split())
    print(f"knowshift: error: {line}", file=sys.stderr)
    return 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        status = app(args=arguments, standalone_mode=False)
    except InputError as error:
        return fail(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return fail(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        print("knowshift: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    except Exception as error:
        return _usage(error)
    return status if isinstance(status, int) else 0


def _usage(error: Exception) -> int:
    """A usage error of the parser is one line; anything else is a bug and keeps its traceback."""
    show: Any = getattr(error, "format_message", None)
    if show is None:
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":
        print(show())
        return 2
    return fail(show())


def version(value: bool) -> None:
    """Print the version and stop."""
    if value:
        typer.echo(f"knowshift {__version__}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


if __name__ == "__main__":
    sys.exit(main())
