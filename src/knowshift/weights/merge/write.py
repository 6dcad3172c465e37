"""The checkpoint folder of a control or rival of restoration, with a card that says what was done and how much.

Joins a method, two checkpoints and the writer of folders.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from knowshift.weights.bits import Bits
from knowshift.weights.card import card
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.merge.meter import Meter
from knowshift.weights.merge.method import Option
from knowshift.weights.merge.registry import METHODS, flag, method
from knowshift.weights.output import write_checkpoints
from knowshift.weights.pairing import pair
from knowshift.weights.walk import Tile


@dataclass(frozen=True, slots=True)
class Merged:
    """What was written.

    Attributes:
        folder: the checkpoint folder.
        removed_norm_share: squared norm of (tuned - merged), as stored, over that of (tuned - base), in the region.
        moved: elements that no longer have the tuned bits.
    """

    folder: Path
    removed_norm_share: float
    moved: int


def write(
    name: str,
    base: Path,
    tuned: Path,
    out: Path,
    *,
    region: str = "all",
    seed: int = 0,
    base_name: str | None = None,
    tuned_name: str | None = None,
    **options: Option,
) -> Merged:
    """Write the checkpoint folder ``out`` by the method called ``name``.

    Args:
        name: one of ``METHODS``.
        base, tuned: checkpoint folders of one architecture.
        out: the folder to write.
        region: which tensors are merged, see ``regions``; the others stay tuned. The methods are published for
            ``all``; beside a restoration choose its region.
        seed: of the methods that draw.
        base_name, tuned_name: how the model card names the two; their paths by default.
        options: of the method, as in its class.

    Raises:
        InputError: naming the flag, file or tensor at fault.
    """
    chosen = method(name, **options)
    left, right = Checkpoint.open(base), Checkpoint.open(tuned)
    pairs, notes = pair(left, right, region)
    meter = Meter(chosen.prepare(pairs, seed))
    settings = {field.name: getattr(chosen, field.name) for field in fields(METHODS[name])}
    settings = {option: value for option, value in settings.items() if value is not None and value is not False}
    names = (base_name or str(base), tuned_name or str(tuned))
    command = ["knowshift", "merge", name, *names, "--out", str(out)]
    for option, value in settings.items():
        command += [flag(option)] if value is True else [flag(option), str(value)]
    command += ["--region", region, "--seed", str(seed)]
    facts: dict[str, object] = {"method": name, **settings, "region": region, "seed": seed}
    if notes:
        facts["notes"] = "; ".join(notes)

    def text() -> list[str]:
        # Measured on the bits as they were written, so that no method is worked out twice.
        measured: dict[str, object] = {
            "squared update removed": f"{meter.removed_norm_share:.4%}",
            "no longer tuned": f"{meter.moved:,} of {sum(entry.size for entry in pairs):,} elements",
        }
        summary = (METHODS[name].__doc__ or "").split("\n")[0]
        title = f"Base and tuned merged by {name}"
        return [card(title, summary, base=names[0], tuned=names[1], command=command, facts=facts | measured)]

    def one(tile: Tile) -> list[Bits]:
        return [meter(tile)]

    (folder,) = write_checkpoints(right, left, pairs, [out], text, one, f"merging by {name}")
    return Merged(folder, meter.removed_norm_share, meter.moved)


def merge(
    name: str,
    base: Path,
    tuned: Path,
    out: Path,
    *,
    region: str = "all",
    seed: int = 0,
    base_name: str | None = None,
    tuned_name: str | None = None,
    **options: Option,
) -> Path:
    """As ``write``; returns the folder alone."""
    return write(
        name, base, tuned, out, region=region, seed=seed, base_name=base_name, tuned_name=tuned_name, **options
    ).folder
