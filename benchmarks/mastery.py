"""How fast is mastery scored? knowshift beside plain ``generate`` and vLLM, one run, the same facts, the same matcher.

    python benchmarks/mastery.py compare --facts entityquestions:PATH --vllm-python VENV/bin/python --out DIR
    python benchmarks/mastery.py growth --out DIR

``compare`` lets the engines take turns, some facts at a time, so that a change in the machine's mood meets all of them.
What is finished stands in ``DIR/turns.jsonl``; the table is written anew after every turn, so a run that is stopped
leaves the figures it has. ``growth`` scores more and more facts with a tiny model: time and memory as facts grow.
benchmarks/vllm-cpu.md makes the environment of vLLM.
"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
NAMES = ("knowshift", "generate", "vllm")
Out = Annotated[Path, typer.Option(help="Folder for the figures.")]


@app.command()
def compare(
    out: Out,
    model: Annotated[str, typer.Option(help="Model folder or name.")] = "smollm2",
    facts: Annotated[str, typer.Option(help="Facts, as `knowshift mastery --facts` takes them.")] = "world",
    split: Annotated[str, typer.Option(help="Split of the facts; all if empty.")] = "test",
    topics: Annotated[str, typer.Option(help="Topics, with commas between; all if empty.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Facts in all, drawn evenly from the topics.")] = 50,
    templates: Annotated[int, typer.Option(min=1, max=21, help="Phrasings of each fact.")] = 21,
    samples: Annotated[int, typer.Option(min=1, help="Draws for each phrasing.")] = 10,
    tokens: Annotated[int, typer.Option(min=1, help="Longest draw.")] = 32,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.")] = 0.7,
    engines: Annotated[str, typer.Option(help="Which take part, with commas between.")] = ",".join(NAMES),
    vllm_python: Annotated[Path | None, typer.Option(help="The Python of vLLM's environment.")] = None,
    generate_batch: Annotated[int | None, typer.Option(help="Prompts in a batch of generate (default: tuned).")] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Facts in a turn.")] = 10,
    seed: Annotated[int, typer.Option(help="Draws facts and answers.")] = 0,
) -> None:
    """Samples per second of each engine, and the share of what this machine could do at best."""
    wanted = engines.split(",")
    if unknown := sorted(set(wanted) - set(NAMES)):
        raise typer.BadParameter(f"{', '.join(unknown)}: not one of {', '.join(NAMES)}", param_hint="--engines")
    if "vllm" in wanted and vllm_python is None:
        raise typer.BadParameter("the Python of vLLM's environment is needed for it", param_hint="--vllm-python")
    from mastery_compare import Comparison, Work

    work = Work(samples=samples, temperature=temperature, tokens=tokens, seed=seed)
    comparison = Comparison(out, model, work)
    comparison.choose(facts, split, [name for name in topics.split(",") if name], limit, templates)
    comparison.load(wanted, vllm_python, generate_batch)
    try:
        comparison.run(chunk)
    finally:
        comparison.close()
    typer.echo((out / "table.md").read_text("utf-8"))


@app.command()
def growth(
    out: Out,
    sizes: Annotated[str, typer.Option(help="How many facts, with commas between.")] = "100,1000,10000",
    samples: Annotated[int, typer.Option(min=1, help="Draws for each phrasing.")] = 10,
    tokens: Annotated[int, typer.Option(min=1, help="Longest draw.")] = 8,
    hidden: Annotated[int, typer.Option(help="Width of the tiny model.")] = 64,
) -> None:
    """Time and peak memory of `knowshift mastery`, each size in a process of its own, with a tiny model."""
    from mastery_growth import measure

    typer.echo(measure(out, [int(size) for size in sizes.split(",")], samples, tokens, hidden))


if __name__ == "__main__":
    app()
