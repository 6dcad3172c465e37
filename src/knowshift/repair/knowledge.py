"""What the base model knows, which is what must be kept: asked once after solved examples, and kept as a file.

The facts are screened with one set of solved examples, and every model (the base too) is then measured with another.
Chosen and measured by the same answers, the base would never fail and every other model would seem to have lost
something. All solved examples are facts of the search part that the base knows itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.files import digest_of, write_parquet
from knowshift.generate.engine import Engine
from knowshift.measure.accuracy import evaluate
from knowshift.repair.split import Part, check_enough, drawn, folded, part_of, split
from knowshift.steps.inputs import SHOTS
from knowshift.study.sample import balanced

FORM = "few-shot"
# Facts of search that are asked at once while solved examples are looked for.
CHUNK = 64
SCHEMA: dict[str, Any] = {"id": pl.String, "part": pl.String, "role": pl.String, "known": pl.Boolean, "text": pl.String}


@dataclass(frozen=True)
class Knowledge:
    """What the base knows of a fact set.

    Attributes:
        known: the facts it knows, by part, in the set's order.
        shots: the solved examples with which models are measured.
        table: a row a fact of the set: id, part, role (``asked``; ``screen`` or ``shot`` for what was a solved
            example, or asks the same as one), known (null for those), text (what the base said).
    """

    known: dict[Part, list[Fact]]
    shots: tuple[Fact, ...]
    table: pl.DataFrame


def known_facts(
    engine: Engine,
    facts: Sequence[Fact],
    source: str,
    *,
    model: str,
    cache: Path,
    seed: int = 0,
    max_new_tokens: int = 16,
) -> Knowledge:
    """The facts that the base model knows: its answer after solved examples contains an accepted one.

    Args:
        engine: the base model; not asked where ``cache`` holds the answers.
        facts: what is asked; ``source`` names them in messages.
        model: the base's digest.
        cache: folder for ``knowledge-<key>.parquet``, named by all that decides its content.
        seed: of the choice of solved examples.
        max_new_tokens: longest answer.

    Raises:
        InputError: if the base knows too few facts in a part, or a file of the cache cannot be read.
    """
    key = digest_of([model, [fact.to_json() for fact in facts], FORM, seed, max_new_tokens])
    file = cache / f"knowledge-{key}.parquet"
    if file.exists():
        try:
            table = pl.read_parquet(file).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(f"{file}: cannot be read; remove it and the base is asked again") from error
    else:
        table = _screened(engine, facts, source, seed, max_new_tokens)
        write_parquet(file, table)
    by_id = {fact.id: fact for fact in facts}
    shots = tuple(by_id[name] for name in table.filter(pl.col("role") == "shot")["id"])
    mastered = set(table.filter(pl.col("known"))["id"])
    known = split((fact for fact in facts if fact.id in mastered), _asked)
    check_enough(known, source, "facts that the base model knows")
    return Knowledge(known, shots, table)


def _screened(engine: Engine, facts: Sequence[Fact], source: str, seed: int, max_new_tokens: int) -> pl.DataFrame:
    screen, shots = _solved(engine, facts, source, seed, max_new_tokens)
    roles = {fact.id: role for role, some in (("screen", screen), ("shot", shots)) for fact in some}
    told = {folded(fact.question) for fact in (*screen, *shots)}
    asked = [fact for fact in facts if folded(fact.question) not in told]
    answers = evaluate(engine, asked, max_new_tokens=max_new_tokens, form=FORM, shots=screen)
    said = {row["id"]: row for row in answers.select("id", "contains", "text").iter_rows(named=True)}
    rows = []
    for fact in facts:
        own = said.get(fact.id, {})
        # What asks the same as a solved example is no example itself, so that each of those stands here once.
        role = "asked" if own else roles.get(fact.id, "screen")
        rows.append((fact.id, part_of(_asked(fact)), role, own.get("contains"), own.get("text")))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _solved(
    engine: Engine, facts: Sequence[Fact], source: str, seed: int, max_new_tokens: int
) -> tuple[list[Fact], list[Fact]]:
    """Two sets of solved examples, topics taking turns: facts of search that the base knows after five random ones."""
    once = {folded(fact.question): fact for fact in reversed(split(facts, _asked)["search"])}
    pool = drawn(once.values(), lambda fact: fact.id, seed)
    first, rest = pool[:SHOTS], pool[SHOTS:]
    known: list[Fact] = []
    for start in range(0, len(rest), CHUNK):
        chunk = rest[start : start + CHUNK]
        answers = evaluate(engine, chunk, max_new_tokens=max_new_tokens, form=FORM, shots=first)
        known += [fact for fact, right in zip(chunk, answers["contains"], strict=True) if right]
        if len(known) >= 2 * SHOTS:
            taken = drawn(balanced(known, 2 * SHOTS, seed), lambda fact: fact.id, seed)
            return taken[:SHOTS], taken[SHOTS:]
    raise InputError(
        f"{source}: of {len(facts)} facts the base model knows hardly any ({len(known)} of the {len(rest)} tried with "
        "solved examples), so there is nothing to keep"
    )


def _asked(fact: Fact) -> str:
    return fact.question
