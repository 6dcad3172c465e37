"""How often does the 95 % paired bootstrap interval hold the truth? Simulated evaluations before and after training.

    python benchmarks/measure_coverage.py --trials 5000

Facts of five levels and two domains are known with a chance that rises with the level, lost and gained with chances
that are the same everywhere, so the true difference is known. With few facts in a level the percentile bootstrap is a
little too narrow; the table shows from where on it can be trusted.
"""

from typing import Annotated

import numpy as np
import typer

from knowshift.measure.statistics import paired_difference

KNOWN = np.linspace(0.1, 0.9, 5)


def coverage(per_cell: int, lost: float, gained: float, trials: int, resamples: int, seed: int) -> float:
    """The share of trials whose interval holds the true difference; ``per_cell`` facts of each level and domain."""
    generator = np.random.default_rng([seed, per_cell, round(1000 * lost), round(1000 * gained)])
    levels = np.tile(np.repeat(np.arange(5), per_cell), 2)
    domains = np.repeat(["id", "ood"], 5 * per_cell)
    truth = float(np.mean((1 - KNOWN) * gained - KNOWN * lost))
    held = 0
    for trial in range(trials):
        before = generator.random(len(levels)) < KNOWN[levels]
        after = np.where(before, generator.random(len(levels)) >= lost, generator.random(len(levels)) < gained)
        found = paired_difference(before, after, levels, domains, seed=trial, resamples=resamples)
        held += found.low <= truth <= found.high
    return held / trials


def main(
    trials: Annotated[int, typer.Option(min=1, help="Simulated evaluations for each row.")] = 2000,
    resamples: Annotated[int, typer.Option(min=1, help="As in `knowshift eval`.")] = 2000,
    seed: int = 0,
) -> None:
    typer.echo("| facts a level and domain | lost | gained | coverage |\n|---|---|---|---|")
    for per_cell in (5, 10, 30, 100, 400):
        for lost, gained in ((0.25, 0.1), (0.05, 0.02)):
            share = coverage(per_cell, lost, gained, trials, resamples, seed)
            typer.echo(f"| {per_cell} | {lost:.0%} | {gained:.0%} | {share:.1%} |")


if __name__ == "__main__":
    typer.run(main)
