"""The mastery score: the share of sampled completions that contain an accepted answer (paper, section 2).

R = hits / (phrasings x draws). First every draw that the store lacks is made, then the tables are read out of the
store: so they are the same whether the draws were made in one run, in several, or by a run that was killed.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.files import digest_of, make_folder, write_json, write_parquet
from knowshift.generate.engine import Engine
from knowshift.mastery.ask import MasteryOptions, ask
from knowshift.mastery.draw import Tally, fill
from knowshift.mastery.room import check_room
from knowshift.mastery.store import Store
from knowshift.mastery.stream import write_stream
from knowshift.mastery.tables import SAMPLES_SCHEMA, SCHEMA, draws_of, mastery_rows, sample_rows, summary
from knowshift.memory import return_freed_memory
from knowshift.progress import bar

__all__ = ["SAMPLES_SCHEMA", "SCHEMA", "MasteryOptions", "score"]

# Draws whose rows are made at once.
CHUNK_DRAWS = 10_000


def score(
    engine: Engine,
    facts: Sequence[Fact],
    out: Path,
    options: MasteryOptions,
    *,
    model: str,
    keep_samples: bool = False,
    store: Path | None = None,
) -> pl.DataFrame:
    """Score ``facts``; write ``mastery.parquet``, ``metrics.json`` and with ``keep_samples`` ``samples.parquet``.

    Only draws that the store lacks are made. More facts, more templates or more samples than an earlier run had
    cost what is new about them; a killed run goes on where it was and ends with the same bits.

    Args:
        engine: the base model, answering. Its ``rows`` are set to those the store was begun with.
        facts: what to ask; ids must be unique.
        out: the run folder.
        options: templates, samples, temperature, new tokens, seed and how to ask.
        model: digest of the model, part of each draw's name in the store.
        keep_samples: keep every completion's text. Draws whose text an earlier run did not keep are made again.
        store: where draws are kept, ``out/store`` if not given; several runs may share one.

    Returns:
        One row a fact, in the order given: the columns of ``SCHEMA``.

    Raises:
        InputError: if there are no facts, an id stands twice, a prompt does not fit the model, or a file in the store
            is damaged.
    """
    _check(facts)
    check_room(engine, facts, options)
    make_folder(out)
    root = store or out / "store"
    way = {
        "model": model,
        "tokenizer": _tokenizer_digest(engine.tokenizer),
        "engine": type(engine).__name__,
        "dtype": engine.dtype,
        "temperature": options.temperature,
        "max_new_tokens": options.max_new_tokens,
        "seed": options.seed,
    }
    opened = Store.open(root, way, fitted=engine.rows, rows=options.rows)
    engine.rows = opened.rows
    with bar("sampling prompts", len(facts) * options.templates) as advance:
        tally = fill(opened, engine, facts, options, texts=keep_samples, advance=advance)
    folder, rows = opened.folder, opened.rows
    del opened  # one index at a time
    return_freed_memory()
    table = _write_tables(Store(folder, rows), facts, out, options, keep_samples)
    write_json(out / "metrics.json", {**summary(table), "draws": _figures(tally, rows)})
    return table


def _write_tables(
    store: Store, facts: Sequence[Fact], out: Path, options: MasteryOptions, keep_samples: bool
) -> pl.DataFrame:
    """Read the tables out of the store, some facts at a time: a table of draws may be larger than memory."""
    mastery: list[pl.DataFrame] = []

    def chunks() -> Iterator[pl.DataFrame]:
        size = max(1, CHUNK_DRAWS // options.trials)
        for start in range(0, len(facts), size):
            some = facts[start : start + size]
            keys = np.concatenate([ask(fact, options).keys for fact in some])
            records = store.read(keys, texts=keep_samples)
            draws = draws_of(records, len(keys), options.samples, texts=keep_samples)
            mastery.append(mastery_rows(some, records, draws, options))
            if keep_samples:
                yield sample_rows(some, draws, options.templates)

    if keep_samples:
        write_stream(out / "samples.parquet", chunks(), SAMPLES_SCHEMA)
    else:
        list(chunks())
        (out / "samples.parquet").unlink(missing_ok=True)  # of an earlier run; it would not go with this table
    table = pl.concat(mastery, rechunk=True)
    write_parquet(out / "mastery.parquet", table)
    return table


def _check(facts: Sequence[Fact]) -> None:
    if not facts:
        raise InputError("there are no facts to score")
    seen: set[str] = set()
    for fact in facts:
        if fact.id in seen:
            raise InputError(f"two facts have the id {fact.id!r}: draws are named by it, so each fact needs its own")
        seen.add(fact.id)


def _tokenizer_digest(tokenizer: Any) -> str:
    """Of all that turns texts into token ids and back: weights alone do not say what a model is told.

    Settings of padding and truncation are left out, since every call changes them.
    """
    if getattr(tokenizer, "is_fast", False):
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content = {name: part for name, part in content.items() if name not in ("padding", "truncation")}
    else:
        content = tokenizer.get_vocab()
    return digest_of([content, tokenizer.chat_template, tokenizer.special_tokens_map])


def _figures(tally: Tally, rows: int) -> dict[str, Any]:
    return {
        "made": tally.made,
        "from_store": tally.stored,
        "greedy_made": tally.greedy,
        "seconds": round(tally.seconds, 3),
        "samples_per_second": round(tally.made / tally.seconds, 3) if tally.seconds else None,
        "tokens": tally.tokens,
        "rows": rows,
    }
