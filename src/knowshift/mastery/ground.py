"""What a search stands on: the settings given now, and those of the mastery run that its folder holds already.

A mastery table is one model's, asked in one way; so what a run goes on with must be what it began with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.files import read_json
from knowshift.mastery.ask import MasteryOptions
from knowshift.mastery.select import read_mastery

_COMMANDS = ("mastery", "select")
_SETTINGS = ("model", "facts", "engine", "tensor_parallel", "store", "drop_overlaps", *MasteryOptions.model_fields)


@dataclass(frozen=True, slots=True)
class Ground:
    """Settings of a search, resolved.

    Attributes:
        model: by name.
        digest: of the model that the folder's facts were asked of; None in a new folder.
        source: of the facts.
        engine: by name.
        tensor_parallel: over how many devices vLLM splits each layer.
        drop_overlaps: whether facts that test asks too are left out of train.
        keep_samples: whether the run keeps every completion's text.
        store: where draws are kept.
        options: how facts are asked.
        ids: facts in the folder's table.
        continues: the record of the run that is gone on with.
    """

    model: str
    digest: str | None
    source: str
    engine: str
    tensor_parallel: int
    drop_overlaps: bool
    keep_samples: bool
    store: Path
    options: MasteryOptions
    ids: tuple[str, ...]
    continues: Mapping[str, Any] | None

    def before(self, facts: Sequence[Fact]) -> list[Fact]:
        """The facts of the folder's table, in its order.

        Raises:
            InputError: if one of them is not among ``facts``.
        """
        by_id = {fact.id: fact for fact in facts}
        for fact in self.ids:
            if fact not in by_id:
                raise InputError(f"--facts {self.source}: no fact {fact!r}, which the mastery run has scored")
        return [by_id[fact] for fact in self.ids]

    def check_model(self, digest: str) -> None:
        """Refuse another model than the run's, whatever its name.

        Raises:
            InputError: if its digest is another.
        """
        if self.digest not in (None, digest):
            raise InputError(f"--model {self.model}: the mastery run asked another model; name another folder")

    def resolved(self) -> dict[str, Any]:
        """Every setting, as ``run.json`` keeps them."""
        names = ("model", "engine", "tensor_parallel", "drop_overlaps", "keep_samples", "store")
        return {"facts": self.source} | {name: getattr(self, name) for name in names} | self.options.model_dump()


def settle(run: Path, given: Mapping[str, Any], *, seed: int) -> Ground:
    """Join what is given with what the folder ``run`` says it was made with.

    Args:
        run: a mastery run, or a folder that is to become one.
        given: ``model``, ``facts``, ``engine``, ``tensor_parallel``, ``store``, ``drop_overlaps`` and fields of
            ``MasteryOptions``; what is None or absent is taken from the run, or is the default.
        seed: of the draws of a new run.

    Raises:
        InputError: if model or facts are neither given nor recorded, or another way to ask is given than recorded.
    """
    if run.exists() and not run.is_dir():
        raise InputError(f"{run}: --until goes on with a mastery run's folder, and this is a file")
    if unknown := given.keys() - set(_SETTINGS):
        raise TypeError(f"no settings of mastery: {', '.join(sorted(unknown))}")
    given = {name: value for name, value in given.items() if value is not None}
    record = _record(run)
    known = dict(record["options"]) if record else {}
    for name in ("model", "facts"):
        if name not in given and name not in known:
            raise InputError(f"{run}: holds no mastery run to go on with: give --{name}")
    for name in ("engine", "drop_overlaps", *MasteryOptions.model_fields):
        if name != "rows" and name in given and name in known and given[name] != known[name]:
            raise InputError(
                f"--{name.replace('_', '-')} {given[name]}: {run} was scored with {known[name]}; "
                "leave the option out, or name another folder"
            )
    chosen = known | given
    fields = {name: chosen[name] for name in MasteryOptions.model_fields if name in chosen}
    return Ground(
        model=chosen["model"],
        digest=record["models"].get("model") if record else None,
        source=chosen["facts"],
        engine=chosen.get("engine", "transformers"),
        tensor_parallel=chosen.get("tensor_parallel", 1),
        drop_overlaps=chosen.get("drop_overlaps", False),
        keep_samples=known.get("keep_samples", False),
        store=given.get("store") or _store(run, known),
        options=MasteryOptions(**({"seed": seed} | fields)),
        ids=tuple(read_mastery(run)["id"].to_list()) if record else (),
        continues=record,
    )


def _record(run: Path) -> dict[str, Any] | None:
    """The record in a folder; None if there is none, as in a new folder or after a kill."""
    file = run / "run.json"
    if not file.exists():
        return None
    record = read_json(file)
    if not isinstance(record, dict) or record.get("command") not in _COMMANDS:
        raise InputError(f"{file}: not the record of a mastery run: name another folder")
    if not all(isinstance(record.get(part), dict) for part in ("options", "models")):
        raise InputError(f"{file}: a damaged record: no options or models")
    return record


def _store(run: Path, known: Mapping[str, Any]) -> Path:
    """Where the run's draws are: beside its table, or where it was told to keep them."""
    own = run / "store"
    told = Path(known["store"]) if "store" in known else own
    return told if told.is_dir() and not own.is_dir() else own
