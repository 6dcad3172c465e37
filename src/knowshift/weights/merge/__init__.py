"""Controls and rivals of restoration, each made from the same two checkpoints and written the same way.

One method a file; ``METHODS`` is the registry.
"""

from dataclasses import fields
from pathlib import Path

from knowshift.errors import InputError
from knowshift.weights.bits import Bits
from knowshift.weights.card import card
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.merge.dare import Dare
from knowshift.weights.merge.interpolate import Interpolate
from knowshift.weights.merge.method import Method
from knowshift.weights.merge.random import RandomRestore
from knowshift.weights.merge.ties_trim import TiesTrim
from knowshift.weights.output import write_checkpoints
from knowshift.weights.pairing import pair
from knowshift.weights.walk import Tile

METHODS: dict[str, type[Interpolate] | type[RandomRestore] | type[Dare] | type[TiesTrim]] = {
    "interpolate": Interpolate,
    "random": RandomRestore,
    "dare": Dare,
    "ties-trim": TiesTrim,
}


def method(name: str, **options: float | None) -> Method:
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
    return METHODS[name](**given)


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
    **options: float | None,
) -> Path:
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
    make = chosen.prepare(pairs, seed)
    settings = {field.name: getattr(chosen, field.name) for field in fields(METHODS[name])}
    settings = {option: value for option, value in settings.items() if value is not None}
    names = (base_name or str(base), tuned_name or str(tuned))
    command = ["knowshift", "merge", name, *names, "--out", str(out)]
    for option, value in settings.items():
        command += [_flag(option), str(value)]
    command += ["--region", region, "--seed", str(seed)]
    facts: dict[str, object] = {"method": name, **settings, "region": region, "seed": seed}
    if notes:
        facts["notes"] = "; ".join(notes)
    text = card(
        f"Base and tuned merged by {name}",
        _summary(METHODS[name]),
        base=names[0],
        tuned=names[1],
        command=command,
        facts=facts,
    )

    def one(tile: Tile) -> list[Bits]:
        return [make(tile)]

    return write_checkpoints(right, left, pairs, [out], [text], one, f"merging by {name}")[0]


def _summary(kind: type) -> str:
    return (kind.__doc__ or "").split("\n")[0]


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


__all__ = ["METHODS", "merge", "method"]
