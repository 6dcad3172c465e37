"""How often does the 95 % paired bootstrap interval hold the truth? Simulated evaluations before and after training.

    python benchmarks/measure_coverage.py --trials 2000

Facts of five levels and two domains are known with a chance that rises with the level, lost and gained with chances
that are the same everywhere, so the true difference is known. With lost and gained alike it is 0 wherever levels are
known half the time on average. `uneven` levels have 2, 1.2, 1, 0.5 and 0.3 times as many facts, the best known fewest.
"""

from typing import Annotated

import numpy as np
import typer

from knowshift.measure.statistics import paired_difference

KNOWN = np.linspace(0.1, 0.9, 5)
SHAPES = {"even": np.ones(5), "uneven": np.array([2, 1.2, 1, 0.5, 0.3])}
RATES = ((0.25, 0.1), (0.1, 0.1), (0.05, 0.02), (0.02, 0.02))
SIZES = (5, 10, 30, 100, 400)


def coverage(sizes: np.ndarray, lost: float, gained: float, trials: int, resamples: int) -> tuple[float, float]:
    """Mean number of facts that changed, and the share of trials whose interval holds the true difference.

    ``sizes`` are the facts of each level in either domain.
    """
    generator = np.random.default_rng([*sizes, round(1000 * lost), round(1000 * gained)])
    levels = np.tile(np.repeat(np.arange(5), sizes), 2)
    domains = np.repeat(["id", "ood"], sizes.sum())
    truth = float(np.mean((1 - KNOWN) * gained - KNOWN * lost))
    held = changed = 0
    for trial in range(trials):
        before = generator.random(len(levels)) < KNOWN[levels]
        after = np.where(before, generator.random(len(levels)) >= lost, generator.random(len(levels)) < gained)
        found = paired_difference(before, after, levels, domains, seed=trial, resamples=resamples)
        held += found.low <= truth + 1e-12 and truth - 1e-12 <= found.high
        changed += int((before != after).sum())
    return changed / trials, held / trials


def main(
    trials: Annotated[int, typer.Option(min=1, help="Simulated evaluations for each row.")] = 2000,
    resamples: Annotated[int, typer.Option(min=1, help="As in `knowshift eval`.")] = 2000,
) -> None:
    typer.echo("| levels | facts a level and domain | lost | gained | facts that changed | coverage |")
    typer.echo("|---|---|---|---|---|---|")
    for shape, factors in SHAPES.items():
        for size in SIZES:
            for lost, gained in RATES:
                sizes = np.maximum(1, (size * factors).round()).astype(int)
                changed, share = coverage(sizes, lost, gained, trials, resamples)
                typer.echo(f"| {shape} | {size} | {lost:.0%} | {gained:.0%} | {changed:.1f} | {share:.1%} |")


if __name__ == "__main__":
    typer.run(main)
