"""What changed in the weights, and how do I get it back?"""

from typing import Annotated

import typer

from knowshift.cli.app import app
from knowshift.cli.options import (
    Arithmetic,
    ArithmeticOption,
    Base,
    Fractions,
    OptionalFractions,
    Order,
    Out,
    Rank,
    RankOption,
    RegionOption,
    Rival,
    Seed,
    Share,
    Tuned,
    tell,
)

PAPER_FRACTIONS = ("0.01", "0.03", "0.05", "0.1", "0.2", "0.4", "0.6")


@app.command()
def diff(
    base: Base,
    tuned: Tuned,
    out: Out,
    region: RegionOption = "blocks",
    arithmetic: ArithmeticOption = Arithmetic.float32,
    fraction: OptionalFractions = None,
    matrices: Annotated[
        bool,
        typer.Option(
            "--matrices",
            help="Also norms, cosine and effective rank of each matrix, into matrices.parquet: seconds for half a "
            "billion weights, hours for 70 billion, and 16 bytes times the square of the widest matrix's shorter side.",
        ),
    ] = False,
    charts: Annotated[bool, typer.Option("--charts", help="Also draw the tables: SVG and PNG in charts/.")] = False,
    seed: Seed = 0,
) -> None:
    """How far did the weights move, where, and how concentrated is it, beside a no-training null?"""
    from knowshift import steps, summaries

    result = steps.diff(
        base,
        tuned,
        out,
        region=region,
        arithmetic=arithmetic.value,
        fractions=fraction or PAPER_FRACTIONS,
        seed=seed,
        matrices=matrices,
        charts=charts,
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
    region: RegionOption = "blocks",
    of: Annotated[
        Share, typer.Option(help="A share of all weights of the region, or of the changed ones.")
    ] = Share.all,
    arithmetic: ArithmeticOption = Arithmetic.float32,
    patch: Annotated[
        bool, typer.Option("--patch", help="Write reversible patches X.patch, not folders; see knowshift patch.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Put the most changed weights back, bit for bit: one checkpoint folder per fraction."""
    from knowshift import steps

    written = steps.restore(
        base,
        tuned,
        fraction,
        out,
        rank=rank.value,
        order=order.value,
        region=region,
        of=of.value,
        arithmetic=arithmetic.value,
        patch=patch,
        seed=seed,
    )
    for path in written:
        typer.echo(f"{path}")


@app.command()
def merge(
    method: Annotated[
        Rival,
        typer.Argument(
            metavar="METHOD",
            show_default=False,
            help="interpolate, random, dare, ties-trim, fapm, dg-hard, hft, layers or modules.",
        ),
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
    keep: Annotated[float | None, typer.Option(help="ties-trim, fapm: share of the weights that stay tuned.")] = None,
    scale: Annotated[float | None, typer.Option(help="dg-hard: factor on the singular value threshold.")] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="LIST", help="layers: blocks to set back, such as 0-3,12.")
    ] = None,
    modules: Annotated[
        str | None, typer.Option(metavar="LIST", help="modules: modules to set back, such as down,o.")
    ] = None,
    inverse: Annotated[
        bool, typer.Option("--inverse", help="layers, modules, hft: set back what would stay tuned instead.")
    ] = False,
    region: RegionOption = "all",
    seed: Seed = 0,
) -> None:
    """Make a control or rival of restoration from the same two models."""
    from knowshift import steps

    merged = steps.merge(
        method.value,
        base,
        tuned,
        out,
        region=region,
        seed=seed,
        alpha=alpha,
        removed_share=removed_share,
        fraction=fraction,
        drop=drop,
        keep=keep,
        scale=scale,
        layers=layers,
        modules=modules,
        inverse=inverse or None,
    )
    typer.echo(f"{merged.folder}")
    tell([f"squared update removed: {merged.removed_norm_share:.2%}"])
