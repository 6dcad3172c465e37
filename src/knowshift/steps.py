"""One function a command: resolved options in, files and ``run.json`` out.

The command line and the demo both call these, so a figure has one way to come about. Rooms do the work; this
file joins them: names become checkpoints, sources become facts, results become files.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.sources import read_facts
from knowshift.files import check_writable, digest_file, write_json, write_parquet
from knowshift.generate import load_engine
from knowshift.generate.engine import Engine
from knowshift.mastery.score import MasteryOptions, score
from knowshift.mastery.select import check_choice, read_mastery, select, write_training_set
from knowshift.runs import record
from knowshift.seeds import derive

if TYPE_CHECKING:
    from knowshift.mastery.until import Outcome
    from knowshift.measure.statistics import Match
    from knowshift.train.options import TrainOptions
    from knowshift.weights.diff import Diff
    from knowshift.weights.merge import Merged
    from knowshift.weights.merge.method import Option
    from knowshift.weights.scores import Arithmetic, Of, Order, Rank

SHOTS = 5


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


def evaluate(
    model: str,
    source: str | None,
    out: Path,
    *,
    base: str | None = None,
    tasks: Sequence[str] = (),
    tasks_dir: Path | None = None,
    mastery_run: Path | None = None,
    form: str = "trained",
    max_new_tokens: int = 16,
    split: str | None = None,
    limit: int | None = None,
    drop_overlaps: bool = False,
    notice: Callable[[str], None] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """``knowshift eval``: ask greedily, write ``answers.parquet`` and ``metrics.json``.

    With ``base`` also the base model's answers in ``base-<form>/`` and ``transitions.parquet``; with ``tasks``
    ``tasks.parquet``.
    """
    from knowshift.measure.accuracy import evaluate as ask
    from knowshift.measure.accuracy import summarise
    from knowshift.measure.against import FEW_SHOT, against_base, base_forms
    from knowshift.models import digest, load_model, load_tokenizer, resolve

    if source is None and (base is not None or mastery_run is not None or not tasks):
        raise InputError("--facts F is needed, unless --tasks are all that is asked")
    if tasks_dir is not None and not tasks:
        raise InputError("--tasks-dir has no effect without --tasks")
    harness = None
    if tasks:
        from knowshift.measure.tasks import Harness, figures

        harness = Harness(tasks, tasks_dir)
    facts: list[Fact] = []
    shots: list[Fact] = []
    levels = None
    forms = (form,) if base is None else base_forms(form)
    if source is not None:
        facts = choose(read_facts(source, split=split, drop_overlaps=drop_overlaps, notice=notice), limit, seed)
        levels = read_levels(mastery_run, facts)
        if FEW_SHOT in forms:
            try:
                shots = draw_shots(source, facts, seed)
            except InputError as error:
                if form == FEW_SHOT:
                    raise
                forms = _without(forms, FEW_SHOT, f"the base model is not shown solved examples: {error}", notice)
    folders = {"model": resolve(model)} | ({} if base is None else {"base": resolve(base)})
    options = {
        "model": model,
        "base": base,
        "facts": source,
        "tasks": list(tasks),
        "tasks_dir": tasks_dir,
        "mastery": mastery_run,
        "form": form,
        "max_new_tokens": max_new_tokens,
        "split": split,
        "drop_overlaps": drop_overlaps,
        "limit": limit,
        "shots": [shot.id for shot in shots],
    }

    def asked(engine: Engine, name: str) -> pl.DataFrame:
        examples = shots if name == FEW_SHOT else ()
        return ask(engine, facts, max_new_tokens=max_new_tokens, levels=levels, form=name, shots=examples)

    digests = {role: digest(folder) for role, folder in folders.items()}
    with record(out, "eval", options, seed=seed, models=digests) as entry:
        metrics: dict[str, Any] = {}
        if facts:
            answers = asked(load_engine(str(folders["model"]))[0], form)
            metrics |= summarise(answers, seed=seed)
            write_parquet(out / "answers.parquet", answers)
        if base is not None:
            engine, _ = load_engine(str(folders["base"]))
            if not engine.tokenizer.chat_template:
                said = "the base model has no chat template, so it is not asked in the form chat"
                forms = _without(forms, "chat", said, notice)
            tables = {name: asked(engine, name) for name in forms}
            del engine
            for name, table in tables.items():
                write_parquet(out / f"base-{name}" / "answers.parquet", table)
                write_json(out / f"base-{name}" / "metrics.json", summarise(table, seed=seed))
            moved, metrics["base"] = against_base(answers, tables, form, seed=seed)
            write_parquet(out / "transitions.parquet", moved)
        if harness is not None:
            entry["versions"] |= harness.version
            loaded = load_model(folders["model"])
            table = harness.run(loaded, load_tokenizer(folders["model"]), limit=limit, seed=seed)
            metrics["tasks"] = figures(table)
            write_parquet(out / "tasks.parquet", table)
        write_json(out / "metrics.json", metrics)
    return metrics


def _without(forms: tuple[str, ...], form: str, why: str, notice: Callable[[str], None] | None) -> tuple[str, ...]:
    """``forms`` but for one, and word of it."""
    if form in forms and notice:
        notice(why)
    return tuple(name for name in forms if name != form)


def transitions(
    before: Path, after: Path, out: Path, *, match: "Match" = "contains", seed: int = 0
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """``knowshift transitions``: what became of each fact; ``transitions.parquet`` and ``metrics.json``."""
    from knowshift.measure.pairs import read_answers
    from knowshift.measure.transitions import compare
    from knowshift.measure.transitions import transitions as follow

    tables = {"before": read_answers(before), "after": read_answers(after)}
    table = follow(tables["before"], tables["after"], match=match)
    options = {"before": before, "after": after, "match": match}
    with record(out, "transitions", options, seed=seed):
        metrics = compare(tables["before"], tables["after"], seed=seed)
        write_parquet(out / "transitions.parquet", table)
        write_json(out / "metrics.json", metrics)
    return table, metrics


def drift(
    base: str,
    tuned: str,
    source: str | None,
    out: Path,
    *,
    text: Path | None = None,
    window: int | None = None,
    mode: str = "teacher",
    dtype: str = "auto",
    compile: bool = False,
    mastery_run: Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    drop_overlaps: bool = False,
    notice: Callable[[str], None] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """``knowshift drift``: how far the next-token distributions moved; ``drift.parquet``, ``metrics.json``."""
    from knowshift.measure.token_drift import drift as measure

    _check_either(source, text, mode=mode, mastery=mastery_run, split=split, overlaps=drop_overlaps, window=window)
    facts: list[Fact] = []
    if source is not None:
        facts = choose(read_facts(source, split=split, drop_overlaps=drop_overlaps, notice=notice), limit, seed)
    levels = read_levels(mastery_run, facts)
    templates = best_templates(mastery_run)
    base_path, tuned_path, models = _resolve_drift(base, tuned)
    options = {
        "base": base,
        "tuned": tuned,
        "facts": source,
        "text": text,
        "window": window,
        "mode": mode,
        "dtype": dtype,
        "compile": compile,
        "mastery": mastery_run,
        "split": split,
        "drop_overlaps": drop_overlaps,
        "limit": limit,
    }
    with record(out, "drift", options, seed=seed, models=models):
        table, metrics = measure(
            base_path,
            tuned_path,
            facts,
            text=text,
            window=window,
            windows=limit if text else None,
            mode=mode,
            dtype=dtype,
            compiled=compile,
            levels=levels,
            best_template=templates,
            seed=seed,
        )
        write_parquet(out / "drift.parquet", table)
        write_json(out / "metrics.json", metrics)
    return metrics


def _check_either(
    source: str | None,
    text: Path | None,
    *,
    mode: str,
    mastery: Path | None,
    split: str | None,
    overlaps: bool,
    window: int | None,
) -> None:
    """Drift is measured on facts or on a text, and some options belong to only one of them."""
    if (source is None) == (text is None):
        raise InputError("give either --facts or --text")
    alien = {"--mastery": mastery, "--split": split, "--drop-overlaps": overlaps, "--mode paper": mode == "paper"}
    given = {"--window": window} if text is None else alien
    for flag, value in given.items():
        if value:
            raise InputError(f"{flag} goes with {'--text' if text is None else '--facts'}")


def _resolve_drift(base: str, tuned: str) -> tuple[Path, Path, dict[str, str]]:
    """``resolve_pair``, but an adapter's own folder where it and its base can share one model."""
    from knowshift.models import digest, resident, resolve

    folder = Path(tuned).expanduser()
    if tuned and folder.is_dir() and resident.is_adapter(folder):
        base_path = resolve(base)
        if resident.fits(base_path, folder):
            return base_path, folder, {"base": digest(base_path), "tuned": resident.digest(folder)}
    return resolve_pair(base, tuned)


def diff(
    base: str,
    tuned: str,
    out: Path,
    *,
    region: str = "blocks",
    arithmetic: "Arithmetic" = "float32",
    fractions: Sequence[float | str],
    seed: int = 0,
    matrices: bool = False,
    charts: bool = False,
) -> "Diff":
    """``knowshift diff``: concentration and place of an update; on request by matrix, and drawn."""
    from knowshift.memory import keep_freed_memory
    from knowshift.models import resolve
    from knowshift.weights.diff import diff as compare

    keep_freed_memory()
    base_path, tuned_path = resolve(base), resolve(tuned)
    digests = _digests_later(base=base_path, tuned=tuned_path)
    choices = {"region": region, "arithmetic": arithmetic, "fractions": fractions, "matrices": matrices}
    with record(out, "diff", {"base": base, "tuned": tuned, **choices, "charts": charts}, seed=seed) as entry:
        result = compare(
            base_path,
            tuned_path,
            region=region,
            arithmetic=arithmetic,
            fractions=fractions,
            seed=seed,
            matrices=matrices,
        )
        if charts:
            from knowshift.report.drawn import draw_diff

            draw_diff(result.concentration, result.modules, out)
        result.write(out)
        entry["models"] = digests()
    return result


def restore(
    base: str,
    tuned: str,
    fractions: Sequence[float | str],
    out: Path,
    *,
    rank: "Rank" = "relative",
    order: "Order" = "top",
    region: str = "blocks",
    of: "Of" = "all",
    arithmetic: "Arithmetic" = "float32",
    patch: bool = False,
    seed: int = 0,
) -> list[Path]:
    """``knowshift restore``: one checkpoint folder per fraction, or with ``patch`` one patch file."""
    from knowshift.memory import keep_freed_memory
    from knowshift.models import resolve
    from knowshift.weights.restore import restore as put_back

    keep_freed_memory()
    base_path, tuned_path = resolve(base), resolve(tuned)
    digests = _digests_later(base=base_path, tuned=tuned_path)
    choices = {"rank": rank, "order": order, "region": region, "of": of, "arithmetic": arithmetic}
    options = {"base": base, "tuned": tuned, "fractions": fractions, **choices, "patch": patch}
    with record(out, "restore", options, seed=seed) as entry:
        written = put_back(
            base_path,
            tuned_path,
            fractions,
            out,
            rank=rank,
            order=order,
            region=region,
            of=of,
            arithmetic=arithmetic,
            seed=seed,
            patch=patch,
            base_name=base,
            tuned_name=tuned,
        )
        entry["models"] = digests()
    return written


def merge(
    method: str,
    base: str,
    tuned: str,
    out: Path,
    *,
    region: str = "all",
    seed: int = 0,
    **options: "Option",
) -> "Merged":
    """``knowshift merge``: the checkpoint of a control or rival of restoration."""
    from knowshift.weights.merge import write

    base_path, tuned_path, models = resolve_pair(base, tuned)
    given = {"method": method, "base": base, "tuned": tuned, "region": region, **options}
    with record(out, "merge", given, seed=seed, models=models) as entry:
        merged = write(
            method, base_path, tuned_path, out, region=region, seed=seed, base_name=base, tuned_name=tuned, **options
        )
        entry |= {"removed_norm_share": merged.removed_norm_share, "moved": merged.moved}
    return merged


def resolve_pair(base: str, tuned: str) -> tuple[Path, Path, dict[str, str]]:
    """The checkpoints of two models by name, and the digests that ``run.json`` keeps of them."""
    from knowshift.models import digest, resolve

    base_path, tuned_path = resolve(base), resolve(tuned)
    return base_path, tuned_path, {"base": digest(base_path), "tuned": digest(tuned_path)}


def _digests_later(**folders: Path) -> Callable[[], dict[str, str]]:
    """Digest checkpoints beside other work: what is returned waits for the digests, by role."""
    from knowshift.models import digest

    digests: dict[str, Future[str]] = {role: Future() for role in folders}

    def run(role: str, folder: Path) -> None:
        try:
            digests[role].set_result(digest(folder))
        except BaseException as error:
            digests[role].set_exception(error)

    for role, folder in folders.items():  # not a pool: work that failed does not wait for them
        threading.Thread(target=run, args=(role, folder), daemon=True).start()
    return lambda: {role: future.result() for role, future in digests.items()}


def choose(facts: list[Fact], limit: int | None, seed: int) -> list[Fact]:
    """``limit`` of ``facts``, drawn at random under ``seed`` (fewer are part of more), in their own order."""
    if limit is None or limit >= len(facts):
        return facts
    if limit < 1:
        raise InputError(f"--limit must be at least 1, not {limit}")
    drawn = sorted(facts, key=lambda fact: derive(seed, "limit", fact.id))[:limit]
    kept = {fact.id for fact in drawn}
    return [fact for fact in facts if fact.id in kept]


def draw_shots(source: str, facts: Sequence[Fact], seed: int) -> list[Fact]:
    """Solved examples for few-shot prompts: from the train split, never a question that is asked."""
    asked = {(fact.topic, fact.question) for fact in facts}
    pool = [fact for fact in read_facts(source) if fact.split == "train" and (fact.topic, fact.question) not in asked]
    if len(pool) < SHOTS:
        raise InputError(f"{source}: few-shot prompts take {SHOTS} facts of split 'train', found {len(pool)}")
    return sorted(pool, key=lambda fact: derive(seed, "shots", fact.id))[:SHOTS]


def read_levels(run: Path | None, facts: Sequence[Fact]) -> dict[str, int] | None:
    """The mastery level of each of ``facts`` that a mastery run scored; the others have none.

    Raises:
        InputError: if the run scored none of them.
    """
    if run is None:
        return None
    table = read_mastery(run)
    levels = dict(zip(table["id"].to_list(), table["level"].to_list(), strict=True))
    known = {fact.id: levels[fact.id] for fact in facts if fact.id in levels}
    if not known:
        raise InputError(f"{run}: none of the {len(facts)} facts was scored there (first: {facts[0].id!r})")
    return known


def best_templates(run: Path | None) -> dict[str, int] | None:
    """For each topic of a mastery run, the template with most hits (the first among equals)."""
    if run is None:
        return None
    table = read_mastery(run)
    if "template_hits" not in table.columns:
        raise InputError(f"{run}: the mastery table has no column template_hits; score it again")
    totals = (
        table.select("topic", "template_hits")
        .with_columns(template=pl.int_ranges(pl.col("template_hits").list.len()))
        .explode("template_hits", "template")
        .group_by("topic", "template")
        .agg(pl.col("template_hits").sum())
        .sort("topic", "template_hits", "template", descending=[False, True, False])
        .group_by("topic", maintain_order=True)
        .first()
    )
    return dict(zip(totals["topic"].to_list(), totals["template"].to_list(), strict=True))


def patch_apply(patch: Path, model: str, out: Path) -> Path:
    """``knowshift patch apply``: the restored checkpoint from a patch and the tuned one."""
    from knowshift.weights.patch import apply

    return _turn_patch("patch apply", patch, model, out, lambda folder: apply(patch, folder, out))


def patch_revert(patch: Path, model: str, out: Path) -> Path:
    """``knowshift patch revert``: the tuned checkpoint again from a patch and the restored one."""
    from knowshift.weights.patch import revert

    return _turn_patch("patch revert", patch, model, out, lambda folder: revert(patch, folder, out, model_name=model))


def _turn_patch(command: str, patch: Path, model: str, out: Path, turn: Callable[[Path], Path]) -> Path:
    from knowshift.models import digest, resolve
    from knowshift.weights.patch import Patch

    seed = Patch(patch).manifest.origin.settings.get("seed")
    folder = resolve(model)
    digests = {"model": digest(folder), "patch": f"sha256:{digest_file(patch)}"}
    options = {"patch": patch, "model": model}
    with record(out, command, options, seed=seed if isinstance(seed, int) else 0, models=digests):
        return turn(folder)
