"""Where facts come from: a name on the command line becomes a list of facts."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from knowshift.errors import InputError
from knowshift.facts.fact import Fact, read_jsonl
from knowshift.facts.tables import read_table

SPLITS = ("train", "validation", "test")
ENTITYQUESTIONS = "entityquestions"


def read_facts(
    source: str,
    *,
    split: str | None = None,
    drop_overlaps: bool = False,
    notice: Callable[[str], None] | None = None,
) -> list[Fact]:
    """The facts named by ``source``.

    Args:
        source: ``world`` (embedded), ``entityquestions`` (fetched before), ``entityquestions:PATH`` (folder, tar.gz
            or zip), ``hf:NAME[:CONFIG][@SPLIT]`` (a dataset on the hub, or a folder), or the path of a file: JSONL,
            ``.json``, ``.csv``, ``.tsv`` or ``.parquet``.
        split: keep only facts of this split.
        drop_overlaps: leave facts out of the train split that the test split asks too (``overlaps``).
        notice: told, in one line, how many such facts there are and what became of them.

    Raises:
        InputError: if there is no such set or file, a line is malformed, or nothing is left.
    """
    facts = _read(source)
    shared = overlaps(facts)
    if notice and (shared or drop_overlaps):
        became = "left out of train" if drop_overlaps else "kept; --drop-overlaps leaves them out of train"
        notice(f"{source}: {len(shared)} facts of train are asked in test too ({became})")
    if drop_overlaps and shared:
        facts = [fact for fact in facts if fact.split != "train" or (fact.topic, fact.question) not in shared]
    if split is None:
        return facts
    kept = [fact for fact in facts if fact.split == split]
    if not kept:
        found = sorted({fact.split for fact in facts if fact.split})
        raise InputError(f"{source}: no facts in split {split!r} (splits here: {', '.join(found) or 'none'})")
    return kept


def overlaps(facts: Sequence[Fact]) -> set[tuple[str, str]]:
    """The pairs of topic and question that stand in both the train and the test split.

    In EntityQuestions they are 126, and the paper left them in. Whether the answers agree does not matter: two
    things of one name make a question that means something else in each split.
    """
    train, test = (
        {(fact.topic, fact.question) for fact in facts if fact.split == split} for split in ("train", "test")
    )
    return train & test


@cache
def _world() -> list[Fact]:
    with resources.as_file(resources.files("knowshift.facts.world").joinpath("facts.jsonl")) as path:
        return read_jsonl(path)


EMBEDDED: dict[str, Callable[[], list[Fact]]] = {"world": _world}


def _read(source: str) -> list[Fact]:
    if source in EMBEDDED:
        return EMBEDDED[source]()
    name, colon, rest = source.partition(":")
    if name == ENTITYQUESTIONS:
        from knowshift.facts.entityquestions import read_entityquestions
        from knowshift.facts.fetch import fetched

        if colon and not rest:
            raise InputError(f"{source}: a folder or an archive belongs after the colon")
        return read_entityquestions(Path(rest).expanduser() if rest else fetched())
    if name == "hf" and colon:
        from knowshift.facts.hub import read_hub

        return read_hub(rest)
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{source}: a facts file is expected, this is a folder")
    if not path.exists():
        known = ", ".join((*EMBEDDED, ENTITYQUESTIONS))
        raise InputError(f"{source}: no such facts file, and no fact set of that name ({known})")
    return read_table(path)
