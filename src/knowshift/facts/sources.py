"""Where facts come from: a name on the command line becomes a list of facts."""

from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path

from knowshift.errors import InputError
from knowshift.facts.fact import Fact, read_jsonl

SPLITS = ("train", "validation", "test")


def read_facts(source: str, *, split: str | None = None) -> list[Fact]:
    """The facts named by ``source``: an embedded set, or the path of a JSONL file.

    Args:
        source: ``world`` or a path.
        split: keep only facts of this split.

    Raises:
        InputError: if there is no such set or file, a line is malformed, or nothing is left.
    """
    facts = EMBEDDED[source]() if source in EMBEDDED else _from_path(source)
    if split is None:
        return facts
    kept = [fact for fact in facts if fact.split == split]
    if not kept:
        found = sorted({fact.split for fact in facts if fact.split})
        raise InputError(f"{source}: no facts in split {split!r} (splits here: {', '.join(found) or 'none'})")
    return kept


@cache
def _world() -> list[Fact]:
    with resources.as_file(resources.files("knowshift.facts.world").joinpath("facts.jsonl")) as path:
        return read_jsonl(path)


EMBEDDED: dict[str, Callable[[], list[Fact]]] = {"world": _world}


def _from_path(source: str) -> list[Fact]:
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{source}: a facts file is expected, this is a folder")
    if not path.exists():
        raise InputError(f"{source}: no such facts file, and no embedded set of that name ({', '.join(EMBEDDED)})")
    return read_jsonl(path)
