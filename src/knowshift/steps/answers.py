"""What changed in answers and tokens: ``eval``, ``transitions``, ``drift``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.sources import read_facts
from knowshift.files import write_json, write_parquet
from knowshift.generate import load_engine
from knowshift.generate.engine import Engine
from knowshift.runs import record
from knowshift.steps.inputs import best_templates, choose, draw_shots, read_levels, resolve_pair

if TYPE_CHECKING:
    from knowshift.measure.statistics import Match


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
