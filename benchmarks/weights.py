"""How fast and in how much memory are weights compared and restored? knowshift beside its peers, whole processes.

    python benchmarks/weights.py pair --out PAIR                       # 0.5 B weights in bfloat16, base and tuned
    python benchmarks/weights.py compare PAIR --peers VENVS --out DIR  # every command in turns
    python benchmarks/weights.py growth --sizes 0.1,0.5,3 --out DIR    # time and memory as models grow
    python benchmarks/weights.py oracle PAIR                           # the set restored, against the paper's algorithm

VENVS holds the virtual environments weightscope, modeldelta and mergekit, one for each peer; benchmarks/weights.md
says how to make them. What is measured goes to DIR/figures.json and DIR/table.md, anew after every turn.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
Out = Annotated[Path, typer.Option(help="Folder to write into.")]


@app.command()
def pair(
    out: Out,
    billions: Annotated[float, typer.Option(help="Weights of each side; 0.5 has the shapes of Qwen2.5-0.5B.")] = 0.5,
    update: Annotated[
        float, typer.Option(help="Standard deviation of the update; of base weights it is 0.02.")
    ] = 2.5e-5,
    seed: Annotated[int, typer.Option(help="Of both.")] = 0,
) -> None:
    """Make two checkpoints: Gaussian weights, and the same with a small Gaussian update."""
    from weights_pairs import make

    typer.echo(make(out, billions, update, seed))


@app.command()
def compare(
    pair: Annotated[Path, typer.Argument(help="Folder with base and tuned.")],
    out: Out,
    peers: Annotated[Path | None, typer.Option(help="Folder with the peers' environments; without, only ours.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Turns.")] = 3,
    only: Annotated[str, typer.Option(help="Names of what is run, with commas between; all if empty.")] = "",
) -> None:
    """Wall time and peak anonymous memory of every command, page cache warm, in turns."""
    from weights_compare import Comparison

    comparison = Comparison(pair, out, peers)
    comparison.run(runs, [name for name in only.split(",") if name])
    typer.echo((out / "table.md").read_text("utf-8"))


@app.command()
def growth(
    out: Out,
    sizes: Annotated[str, typer.Option(help="Billions of weights a side, with commas between.")] = "0.1,0.5,3",
    runs: Annotated[int, typer.Option(min=1, help="Runs of each command; medians are reported.")] = 3,
    cold: Annotated[bool, typer.Option(help="Drop the pairs from the page cache before each run.")] = False,
    keep: Annotated[bool, typer.Option(help="Keep the pairs.")] = False,
) -> None:
    """Time and peak anonymous memory of diff and of restoring one fraction as models grow."""
    from weights_growth import measure

    typer.echo(measure(out, [float(size) for size in sizes.split(",")], runs=runs, cold=cold, keep=keep))


@app.command()
def oracle(
    pair: Annotated[Path, typer.Argument(help="Folder with base and tuned, up to some 300 M weights in blocks.")],
) -> None:
    """Does every paper fraction restore exactly the elements that sorting all scores picks, and as many?"""
    from weights_oracle import check

    typer.echo(check(pair / "base", pair / "tuned"))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    app()
