"""The command line: parses, calls, prints. Everything else is imported when a command needs it."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from knowshift import __version__
from knowshift.errors import InputError

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


class Method(StrEnum):
    """How to fine-tune."""

    sft = "sft"
    lora = "lora"


class Form(StrEnum):
    """How a question is put in evaluation."""

    trained = "trained"
    plain = "plain"
    few_shot = "few-shot"


class Mode(StrEnum):
    """What drift compares."""

    teacher = "teacher"
    paper = "paper"


class Region(StrEnum):
    """Which weights are ranked."""

    blocks = "blocks"
    attention = "attention"
    mlp = "mlp"
    embeddings = "embeddings"
    all = "all"


class Arithmetic(StrEnum):
    """Number type of the change scores."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Rank(StrEnum):
    """What weights are ranked by."""

    relative = "relative"
    absolute = "absolute"
    base_magnitude = "base-magnitude"
    random = "random"


class Order(StrEnum):
    """From which end of the ranking weights are restored."""

    top = "top"
    bottom = "bottom"


class Share(StrEnum):
    """What a fraction is a fraction of."""

    all = "all"
    changed = "changed"


class Engine(StrEnum):
    """What runs the model."""

    transformers = "transformers"


Model = Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Folder, hub id, adapter or smollm2.")]
Base = Annotated[str, typer.Argument(metavar="BASE", show_default=False, help="The model before fine-tuning.")]
Tuned = Annotated[str, typer.Argument(metavar="TUNED", show_default=False, help="The model after fine-tuning.")]
Facts = Annotated[str, typer.Option("--facts", metavar="F", show_default=False, help="world, or a JSONL file.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", show_default=False, help="Where the files go.")]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same result.")]
Split = Annotated[str | None, typer.Option("--split", metavar="S", help="Only facts of this split.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only N facts, drawn at random.")]
MasteryRun = Annotated[
    Path | None, typer.Option("--mastery", metavar="DIR", help="A mastery run: figures by level need it.")
]
RegionOption = Annotated[Region, typer.Option("--region", help="blocks: every block tensor except norms.")]
ArithmeticOption = Annotated[Arithmetic, typer.Option("--arithmetic", help="Number type of the scores.")]


@app.command()
def demo(
    out: Out,
    model: Annotated[str, typer.Option(help="The base model.")] = "smollm2",
    facts: Annotated[str, typer.Option(help="world, or a JSONL file with splits and domains.")] = "world",
    method: Annotated[Method, typer.Option(help="Full fine-tuning, or LoRA.")] = Method.sft,
    seed: Seed = 0,
) -> None:
    """The whole chain on a real model, ending in report.html. Killed, it goes on where it was."""
    from knowshift.study.demo import DemoOptions, run

    page = run(out, DemoOptions(model=model, facts=facts, method=method.value, seed=seed))
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
    for level, count in steps.count_levels(table).items():
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
    from knowshift import steps

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
    typer.echo(steps.describe_accuracy(metrics))


@app.command()
def drift(
    base: Base,
    tuned: Tuned,
    facts: Facts,
    out: Out,
    mode: Annotated[Mode, typer.Option(help="teacher: gold answers, whole vocabulary. paper: top 10.")] = Mode.teacher,
    mastery: MasteryRun = None,
    split: Split = None,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """How far did the next-token distributions move? KL between tuned and base."""
    from knowshift import steps

    metrics = steps.drift(
        base, tuned, facts, out, mode=mode.value, mastery_run=mastery, split=split, limit=limit, seed=seed
    )
    typer.echo(steps.describe_drift(metrics))


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
