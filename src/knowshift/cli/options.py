"""The options that commands share: their names, choices and help, each in one place."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Scheduler(StrEnum):
    """How the learning rate falls."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"
    constant_with_warmup = "constant_with_warmup"
    cosine_with_restarts = "cosine_with_restarts"
    polynomial = "polynomial"
    inverse_sqrt = "inverse_sqrt"
    cosine_with_min_lr = "cosine_with_min_lr"
    cosine_warmup_with_min_lr = "cosine_warmup_with_min_lr"
    warmup_stable_decay = "warmup_stable_decay"


class Form(StrEnum):
    """How a question is put in evaluation."""

    trained = "trained"
    plain = "plain"
    few_shot = "few-shot"
    chat = "chat"


class Matching(StrEnum):
    """When an answer counts as right."""

    contains = "contains"
    strict = "strict"


class Mode(StrEnum):
    """What drift compares."""

    teacher = "teacher"
    paper = "paper"


class Dtype(StrEnum):
    """Number type a model computes in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


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


class Rival(StrEnum):
    """Controls and rivals of restoration."""

    interpolate = "interpolate"
    random = "random"
    dare = "dare"
    ties_trim = "ties-trim"
    fapm = "fapm"
    dg_hard = "dg-hard"
    hft = "hft"
    layers = "layers"
    modules = "modules"


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
    vllm = "vllm"


def check_region(value: str) -> str:
    """Refuse a region that is none before any model is read."""
    from knowshift.weights.regions import selector

    selector(value)
    return value


FACTS = "world, entityquestions[:PATH], hf:NAME, or a JSONL, CSV, TSV, JSON or Parquet file."
Model = Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Folder, hub id, adapter or smollm2.")]
Base = Annotated[str, typer.Argument(metavar="BASE", show_default=False, help="The model before fine-tuning.")]
Tuned = Annotated[str, typer.Argument(metavar="TUNED", show_default=False, help="The model after fine-tuning.")]
OptionalBase = Annotated[
    str | None,
    typer.Option("--base", metavar="BASE", help="Ask the base too: in the same form, plain, and with solved examples."),
]
Facts = Annotated[str, typer.Option("--facts", metavar="F", show_default=False, help=FACTS)]
TrainMethod = Annotated[str, typer.Option("--method", metavar="METHOD", help="sft, lora ..., or several joined by +.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", show_default=False, help="Where the files go.")]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same result.")]
Split = Annotated[str | None, typer.Option("--split", metavar="S", help="Only facts of this split.")]
DropOverlaps = Annotated[
    bool, typer.Option("--drop-overlaps", help="Leave out of train what test asks too; said on stderr either way.")
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only N facts, drawn at random.")]
TensorParallel = Annotated[
    int, typer.Option("--tensor-parallel", metavar="N", min=1, help="With vllm: devices that share each layer.")
]
MasteryRun = Annotated[
    Path | None, typer.Option("--mastery", metavar="DIR", help="A mastery run: figures by level need it.")
]
RegionOption = Annotated[
    str,
    typer.Option(
        "--region",
        metavar="REGION",
        callback=check_region,
        help="blocks (every block tensor except norms), attention, mlp, embeddings, all, or re:EXPRESSION: tensors in "
        "whose name it is found.",
    ),
]
ArithmeticOption = Annotated[Arithmetic, typer.Option("--arithmetic", help="Number type of the scores.")]
RankOption = Annotated[Rank, typer.Option("--rank", help="What decides which weights go back first.")]
OptionalFractions = Annotated[
    list[str] | None,
    typer.Option("--fraction", metavar="X", help="Share to report; may be repeated. (default the paper's seven)"),
]
Fractions = Annotated[
    list[str],
    typer.Option("--fraction", metavar="X", show_default=False, help="Share to restore, 0 to 1; may be repeated."),
]


def tell(notes: Iterable[str]) -> None:
    """Say on standard error what a user should know and a script that reads the output should not meet.

    For after the work: what fails says one line, and no other.
    """
    for note in notes:
        typer.echo(note, err=True)
