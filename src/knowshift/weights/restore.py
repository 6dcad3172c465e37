"""Put a share of the update back: checkpoint folders in which chosen weights have base's bits again.

Bits are copied under a mask, never computed: fraction 0 is the tuned model byte for byte, fraction 1 is base on
the region, and every element equals one of the two.
"""

from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from knowshift.errors import InputError
from knowshift.weights.bits import Bits
from knowshift.weights.card import card
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.output import check_targets, write_checkpoints
from knowshift.weights.pairing import pair
from knowshift.weights.ranking import Ranking, exact, spelled
from knowshift.weights.scores import Arithmetic, Of, Order, Rank, Rule
from knowshift.weights.taken import Taken, take
from knowshift.weights.walk import Tile, one_bar

if TYPE_CHECKING:
    from knowshift.weights.patch import Origin

_WORDS = {
    "relative": "the largest change relative to the base weight",
    "absolute": "the largest absolute change",
    "base-magnitude": "the smallest base weight",
    "random": "a random rank",
}


def restore(
    base: Path,
    tuned: Path,
    fractions: Sequence[float | str],
    out: Path,
    *,
    rank: Rank = "relative",
    order: Order = "top",
    region: str = "blocks",
    of: Of = "all",
    arithmetic: Arithmetic = "float32",
    seed: int = 0,
    patch: bool = False,
    base_name: str | None = None,
    tuned_name: str | None = None,
) -> list[Path]:
    """Write one checkpoint folder ``out/<fraction>`` for each fraction, all in one pass.

    Args:
        base, tuned: checkpoint folders of one architecture.
        fractions: how much to restore, from 0 to 1, each exactly floor(n * fraction) elements; a text keeps its
            spelling in the folder's name.
        out: the folder to write into.
        rank, order, of, arithmetic, seed: which elements go first, see ``scores.Rule``.
        region: which tensors, see ``regions``.
        patch: write, in place of each folder, a file ``out/<fraction>.patch`` that makes it from the tuned one.
        base_name, tuned_name: how the model card names the two; their paths by default.

    Returns:
        The folders or files, in the order of ``fractions``.

    Raises:
        InputError: naming the flag, file or tensor at fault.
    """
    wanted = {spelled(fraction): exact(fraction) for fraction in fractions}
    if not wanted:
        raise InputError("--fraction: at least one is needed")
    rule = Rule(rank, order, of, arithmetic, seed)
    left, right = Checkpoint.open(base), Checkpoint.open(tuned)
    pairs, notes = pair(left, right, region)
    targets = [out / label for label in wanted]
    if not patch:
        check_targets(right, left, targets)  # before work is spent on what could not be written
    names = (base_name or str(base), tuned_name or str(tuned))
    walks = 2 if rule.coarse else 3
    with one_bar("restoring", sum(entry.size for entry in pairs), walks + (not patch)):
        ranking = Ranking(pairs, rule, walks=walks)
        taken = take(ranking, ranking.cuts(wanted.values()))
        cards = [
            _card(ranking, chosen, label, fraction, names, region, out, notes)
            for (label, fraction), chosen in zip(wanted.items(), taken, strict=True)
        ]

        def make(tile: Tile) -> list[Bits]:
            scored = tile.score(rule)
            return [chosen.restored(tile, scored) for chosen in taken]

        if not patch:
            return write_checkpoints(right, left, pairs, targets, lambda: cards, make, "writing")

    from knowshift.weights.patch import SUFFIX, write_patches

    files = [out / f"{label}{SUFFIX}" for label in wanted]
    origins = [
        _origin(ranking, chosen, label, names, region, out, text)
        for label, chosen, text in zip(wanted, taken, cards, strict=True)
    ]
    most = [chosen.cut.count for chosen in taken]
    return write_patches(right, pairs, files, origins, most, make, "writing")


def _card(
    ranking: Ranking,
    chosen: Taken,
    label: str,
    fraction: Fraction,
    names: tuple[str, str],
    region: str,
    out: Path,
    notes: list[str],
) -> str:
    rule, energy = ranking.rule, float(ranking.energy.sum())
    whom = "elements" if rule.of == "all" else "changed elements"
    how = _WORDS[rule.rank] + (", first to last" if rule.order == "top" else ", last to first")
    facts = {
        "region": f"{region}: {ranking.elements:,} elements, {int(ranking.changed.sum()):,} of them changed",
        "restored": f"{chosen.cut.count:,} elements, floor({ranking.population:,} x {label})",
        "squared update removed": f"{chosen.energy / energy:.4%}" if energy else "none: the models are identical",
        "arithmetic of the ranking": rule.arithmetic,
    }
    if notes:
        facts["notes"] = "; ".join(notes)
    return card(
        f"{float(fraction):.4g} of the update restored",
        f"The tuned model with {float(fraction):.4%} of the {whom} of its region `{region}` set back to the base "
        f"model's values, by {how}. Every weight is bit for bit one of the two models'.",
        base=names[0],
        tuned=names[1],
        command=_command(rule, label, names, region, out),
        facts=cast(dict[str, object], facts),
    )


def _command(rule: Rule, label: str, names: tuple[str, str], region: str, out: Path) -> list[str]:
    command = ["knowshift", "restore", *names, "--fraction", label, "--out", str(out), "--rank", rule.rank]
    command += ["--order", rule.order, "--region", region, "--of", rule.of, "--arithmetic", rule.arithmetic]
    return [*command, "--seed", str(rule.seed)]


def _origin(
    ranking: Ranking, chosen: Taken, label: str, names: tuple[str, str], region: str, out: Path, text: str
) -> "Origin":
    from knowshift.weights.patch import Origin

    counts = {"elements": ranking.elements, "ranked": ranking.population, "restored": chosen.cut.count}
    return Origin(
        base=names[0],
        tuned=names[1],
        settings={"fraction": label, "region": region, **asdict(ranking.rule), **counts},
        command=(*_command(ranking.rule, label, names, region, out), "--patch"),
        card=text,
    )
