"""What a model knows and what it is trained on: ``mastery``, ``select``, ``train``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from knowshift.facts.fact import Fact
from knowshift.facts.sources import read_facts
from knowshift.files import check_writable
from knowshift.generate import load_engine
from knowshift.mastery.score import MasteryOptions, score
from knowshift.mastery.select import check_choice, read_mastery, select, write_training_set
from knowshift.runs import record
from knowshift.steps.inputs import choose

if TYPE_CHECKING:
    from knowshift.mastery.until import Outcome
    from knowshift.train.options import TrainOptions


def mastery(
    model: str,
    source: str,
    out: Path,
    options: MasteryOptions,
    *,
    engine: str = "transformers",
    tensor_parallel: int = 1,
    split: str | None = None,
    limit: int | None = None,
    keep_samples: bool = False,
    store: Path | None = None,
    drop_overlaps: bool = False,
    notice: Callable[[str], None] | None = None,
) -> pl.DataFrame:
    """``knowshift mastery``: score facts, write ``mastery.parquet`` and ``metrics.json``."""
    facts = choose(read_facts(source, split=split, drop_overlaps=drop_overlaps, notice=notice), limit, options.seed)
    check_writable(store or out)
    loaded, digest = load_engine(model, engine, tensor_parallel=tensor_parallel)
    resolved = {
        "model": model,
        "facts": source,
        "engine": engine,
        "tensor_parallel": tensor_parallel,
        "split": split,
        "drop_overlaps": drop_overlaps,
        "limit": limit,
        "keep_samples": keep_samples,
        "store": store or out / "store",
        **options.model_dump(),
    }
    with record(out, "mastery", resolved, seed=options.seed, models={"model": digest}):
        return score(loaded, facts, out, options, model=digest, keep_samples=keep_samples, store=store)


def select_set(
    run: Path, out: Path, *, level: int, size: int, seed: int = 0, split: str = "train", domain: str = "id"
) -> pl.DataFrame:
    """``knowshift select --size``: write an SFT set of one level."""
    chosen = select(read_mastery(run), level=level, size=size, seed=seed, split=split, domain=domain)
    write_training_set(chosen, out)
    return chosen


def select_until(
    run: Path,
    out: Path,
    *,
    level: int,
    until: int,
    model: str | None = None,
    source: str | None = None,
    seed: int = 0,
    split: str = "train",
    domain: str = "id",
    notice: Callable[[str], None] | None = None,
    **given: Any,
) -> "tuple[pl.DataFrame, Outcome]":
    """``knowshift select --until``: score facts until enough of a level are found, write an SFT set of them.

    ``given`` holds settings of ``mastery``; what is None or absent is as in the run that ``run`` holds already.
    """
    from knowshift.mastery.ground import settle
    from knowshift.mastery.until import candidates, check_enough, find, outcome

    check_choice(level, domain)
    ground = settle(run, {"model": model, "facts": source, **given}, seed=seed)
    facts = read_facts(ground.source, drop_overlaps=ground.drop_overlaps, notice=notice)
    pool = candidates(facts, split=split, domain=domain)
    check_enough(pool, until, ground.source, split=split, domain=domain)
    before = ground.before(facts)
    for place in (run, ground.store, out.parent):
        check_writable(place)
    loaded, digest = load_engine(ground.model, ground.engine, tensor_parallel=ground.tensor_parallel)
    ground.check_model(digest)
    resolved = {**ground.resolved(), "split": split, "domain": domain, "level": level, "until": until}
    with record(run, "select", resolved, seed=ground.options.seed, models={"model": digest}) as entry:

        def ask(some: Sequence[Fact]) -> pl.DataFrame:
            keep = ground.keep_samples
            return score(loaded, some, run, ground.options, model=digest, keep_samples=keep, store=ground.store)

        table, search = find(ask, pool, level=level, wanted=until, seed=seed, before=before)
        found = outcome(search)
        entry |= {"select_seed": seed, "search": found.as_json(), "continues": ground.continues}
    found.check(level, split, domain, run)
    chosen = select(table, level=level, size=until, seed=seed, split=split, domain=domain)
    write_training_set(chosen, out)
    return chosen, found


def train(options: "TrainOptions") -> Path:
    """``knowshift train``: fine-tune, write a checkpoint folder."""
    from knowshift.train.run import train as run

    return run(options)
