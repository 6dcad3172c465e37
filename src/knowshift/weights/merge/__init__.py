"""Controls and rivals of restoration, each made from the same two checkpoints and written the same way.

One method a file; ``METHODS`` is the registry.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from knowshift.errors import InputError
from knowshift.files import atomic_file
from knowshift.weights.bits import Bits
from knowshift.weights.card import card
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.merge.dare import Dare
from knowshift.weights.merge.dg_hard import DgHard
from knowshift.weights.merge.fapm import Fapm
from knowshift.weights.merge.hft import Hft
from knowshift.weights.merge.interpolate import Interpolate
from knowshift.weights.merge.layers import Layers
from knowshift.weights.merge.meter import Meter
from knowshift.weights.merge.method import Method, Option
from knowshift.weights.merge.modules import Modules
from knowshift.weights.merge.random import RandomRestore
from knowshift.weights.merge.ties_trim import TiesTrim
from knowshift.weights.output import CARD, write_checkpoints
from knowshift.weights.pairing import pair
from knowshift.weights.walk import Tile

METHODS: dict[str, type] = {
    "interpolate": Interpolate,
    "random": RandomRestore,
    "dare": Dare,
    "ties-trim": TiesTrim,
    "fapm": Fapm,
    "dg-hard": DgHard,
    "hft": Hft,
    "layers": Layers,
    "modules": Modules,
}


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


def method(name: str, **options: Option) -> Method:
    """The method called ``name``; options that are None keep their defaults.

    Raises:
        InputError: if there is no such method, or it does not know or refuses an option.
    """
    if name not in METHODS:
        raise InputError(f"merge {name}: must be one of {', '.join(METHODS)}")
    given = {option: value for option, value in options.items() if value is not None}
    known = [field.name for field in fields(METHODS[name])]
    for option in given:
        if option not in known:
            flags = ", ".join(_flag(field) for field in known)
            raise InputError(f"merge {name} has no option {_flag(option)}; it has {flags}")
    made: Method = METHODS[name](**given)
    return made


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
        command += [_flag(option)] if value is True else [_flag(option), str(value)]
    command += ["--region", region, "--seed", str(seed)]
    facts: dict[str, object] = {"method": name, **settings, "region": region, "seed": seed}
    if notes:
        facts["notes"] = "; ".join(notes)

    def text(**measured: object) -> str:
        return card(
            f"Base and tuned merged by {name}",
            _summary(METHODS[name]),
            base=names[0],
            tuned=names[1],
            command=command,
            facts=facts | {name.replace("_", " "): value for name, value in measured.items()},
        )

    def one(tile: Tile) -> list[Bits]:
        return [meter(tile)]

    (folder,) = write_checkpoints(right, left, pairs, [out], [text()], one, f"merging by {name}")
    # Measured on the bits as they were written, so that no method is worked out twice.
    elements = sum(entry.size for entry in pairs)
    share = meter.removed_norm_share
    with atomic_file(folder / CARD) as partial:
        moved = f"{meter.moved:,} of {elements:,} elements"
        partial.write_text(text(squared_update_removed=f"{share:.4%}", no_longer_tuned=moved), "utf-8")
    return Merged(folder, share, meter.moved)


def _summary(kind: type) -> str:
    return (kind.__doc__ or "").split("\n")[0]


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


__all__ = ["METHODS", "Merged", "Method", "merge", "method", "write"]
