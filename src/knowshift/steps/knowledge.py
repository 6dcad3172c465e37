"""What a model knows and what it is trained on: ``mastery``, ``select``, ``train``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from knowshift.facts.fact import Fact
from knowshift.facts.sources import read_facts
from knowshift.files import check_writable
from knowshift.generate import load_engine
from knowshift.mastery.levels import Curriculum, spelled
from knowshift.mastery.mix import Mix, counts, in_order, select_mix, spelled_mix
from knowshift.mastery.score import MasteryOptions, score
from knowshift.mastery.select import as_levels, check_choice, read_mastery, select, write_training_set
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
    run: Path,
    out: Path,
    *,
    level: int | tuple[int, ...] | None = None,
    mix: Mix | None = None,
    size: int,
    seed: int = 0,
    split: str = "train",
    domain: str = "id",
    curriculum: Curriculum | None = None,
) -> pl.DataFrame:
    """``knowshift select --size``: write an SFT set of ``level``, or of levels in the shares of ``mix``."""
    chosen = _chosen(read_mastery(run), level, mix, size, seed, split, domain, curriculum)
    write_training_set(chosen, out)
    return chosen


def select_until(
    run: Path,
    out: Path,
    *,
    level: int | tuple[int, ...] | None = None,
    mix: Mix | None = None,
    until: int,
    model: str | None = None,
    source: str | None = None,
    seed: int = 0,
    split: str = "train",
    domain: str = "id",
    curriculum: Curriculum | None = None,
    notice: Callable[[str], None] | None = None,
    **given: Any,
) -> "tuple[pl.DataFrame, dict[tuple[int, ...], Outcome]]":
    """``knowshift select --until``: score facts until enough are found, write an SFT set of them.

    ``given`` holds settings of ``mastery``; what is None or absent is as in the run that ``run`` holds already. Of a
    mix each level is searched for in turn, so what one search scored costs the next nothing.

    Returns:
        The set, and how the search for each level, or for levels taken as one, went.
    """
    from knowshift.mastery.ground import settle
    from knowshift.mastery.until import candidates, check_enough, find, outcome

    check_choice(tuple(mix) if mix is not None else _given(level), domain)
    ground = settle(run, {"model": model, "facts": source, **given}, seed=seed)
    facts = read_facts(ground.source, drop_overlaps=ground.drop_overlaps, notice=notice)
    pool = candidates(facts, split=split, domain=domain)
    check_enough(pool, until, ground.source, split=split, domain=domain)
    before = ground.before(facts)
    for place in (run, ground.store, out.parent):
        check_writable(place)
    loaded, digest = load_engine(ground.model, ground.engine, tensor_parallel=ground.tensor_parallel)
    ground.check_model(digest)
    wanted = {(one,): count for one, count in counts(mix, until).items() if count} if mix else {_given(level): until}
    resolved = {**ground.resolved(), "split": split, "domain": domain, "until": until}
    resolved |= (
        {"mix": spelled_mix(mix)} if mix else {"level": level if isinstance(level, int) else spelled(_given(level))}
    )
    with record(run, "select", resolved, seed=ground.options.seed, models={"model": digest}) as entry:

        def ask(some: Sequence[Fact]) -> pl.DataFrame:
            keep = ground.keep_samples
            return score(loaded, some, run, ground.options, model=digest, keep_samples=keep, store=ground.store)

        by_id = {fact.id: fact for fact in facts}
        found = {}
        for levels, count in wanted.items():
            table, search = find(ask, pool, level=levels, wanted=count, seed=seed, before=before)
            before = [by_id[fact] for fact in table["id"]]
            found[levels] = outcome(search)
        searches = {spelled(levels): one.as_json() for levels, one in found.items()}
        entry |= {"select_seed": seed, "continues": ground.continues}
        entry["search"] = searches if mix else searches.popitem()[1]
    for levels, one in found.items():
        one.check(levels, split, domain, run, until)
    chosen = _chosen(table, level, mix, until, seed, split, domain, curriculum)
    write_training_set(chosen, out)
    return chosen, found


def _given(level: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if level is None:
        raise TypeError("one of level and mix is needed")
    return as_levels(level)


def _chosen(
    table: pl.DataFrame,
    level: int | tuple[int, ...] | None,
    mix: Mix | None,
    size: int,
    seed: int,
    split: str,
    domain: str,
    curriculum: Curriculum | None,
) -> pl.DataFrame:
    if mix is not None:
        chosen = select_mix(table, mix=mix, size=size, seed=seed, split=split, domain=domain)
    else:
        chosen = select(table, level=_given(level), size=size, seed=seed, split=split, domain=domain)
    return chosen if curriculum is None else in_order(chosen, curriculum)


def train(options: "TrainOptions") -> Path:
    """``knowshift train``: fine-tune, write a checkpoint folder."""
    from knowshift.train.run import train as run

    return run(options)
