"""The mastery score: the share of sampled completions that contain an accepted answer (paper, section 2).

R = hits / (templates x samples). Facts are scored in blocks; a finished block is a Parquet file named by a
digest of everything that decides its content, so a killed run goes on where it was and a changed option never
meets an old result.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.matching import Matcher
from knowshift.facts.templates import FORMS, templates_for
from knowshift.files import digest_of, make_folder, write_parquet
from knowshift.generate.engine import Completion, Engine, Prompt
from knowshift.mastery.levels import level
from knowshift.memory import return_freed_memory
from knowshift.progress import bar
from knowshift.settings import Settings

# Draws in one block: enough prompts of each length to fill a batch, few enough that a kill costs little.
# It depends on the options alone, so what is decoded together does too.
BLOCK_DRAWS = 6_000

SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "topic": pl.String,
    "subject": pl.String,
    "question": pl.String,
    "answers": pl.List(pl.String),
    "split": pl.String,
    "domain": pl.String,
    "hits": pl.Int32,
    "trials": pl.Int32,
    "mastery": pl.Float64,
    "level": pl.Int8,
    "template_hits": pl.List(pl.Int32),
}
SAMPLES_SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "template": pl.Int32,
    "sample": pl.Int32,
    "text": pl.String,
    "hit": pl.Boolean,
    "tokens": pl.Int32,
    "finish": pl.String,
}


class MasteryOptions(Settings):
    """How facts are asked; the defaults are the paper's."""

    templates: int = Field(default=FORMS, ge=1, le=FORMS, description="cloze templates asked for each fact")
    samples: int = Field(default=10, ge=1, description="completions drawn for each template")
    temperature: float = Field(default=0.7, gt=0, allow_inf_nan=False)
    max_new_tokens: int = Field(default=32, ge=1)
    seed: int = 0

    @property
    def trials(self) -> int:
        """Completions drawn for each fact."""
        return self.templates * self.samples


def score(
    engine: Engine,
    facts: Sequence[Fact],
    out: Path,
    options: MasteryOptions,
    *,
    model: str,
    keep_samples: bool = False,
) -> pl.DataFrame:
    """Score ``facts`` and write ``mastery.parquet`` (with ``keep_samples`` also ``samples.parquet``) to ``out``.

    Args:
        engine: the base model, answering.
        facts: what to ask; ids must be unique.
        out: the run folder; finished blocks are kept in ``out/parts`` until the whole is written.
        options: templates, samples, temperature, new tokens and seed.
        model: digest of the model, part of each block's name.
        keep_samples: keep every completion's text.

    Returns:
        One row a fact, in the order given: the columns of ``SCHEMA``.
    """
    if not facts:
        raise InputError("there are no facts to score")
    parts = make_folder(out / "parts")
    size = max(1, BLOCK_DRAWS // options.trials)
    blocks = [facts[start : start + size] for start in range(0, len(facts), size)]
    names = [_block_name(block, options, model, keep_samples) for block in blocks]
    finished = [(parts / f"{name}.parquet").exists() for name in names]
    done = sum(len(block) for block, whole in zip(blocks, finished, strict=True) if whole)
    with bar("sampling prompts", len(facts) * options.templates, done=done * options.templates) as advance:
        for block, name, whole in zip(blocks, names, finished, strict=True):
            if not whole:
                _score_block(engine, block, options, parts, name, keep_samples, advance)
                return_freed_memory()  # so that memory stays flat in the number of facts
    table = _gather([parts / f"{name}.parquet" for name in names], out / "mastery.parquet")
    if keep_samples:
        _gather([parts / f"{name}.samples.parquet" for name in names], out / "samples.parquet")
    return table


def _score_block(
    engine: Engine,
    facts: Sequence[Fact],
    options: MasteryOptions,
    parts: Path,
    name: str,
    keep_samples: bool,
    advance: Callable[[int], None],
) -> None:
    prompts = list(_prompts(facts, options))
    owners = [index for index in range(len(facts)) for _ in range(options.templates)]
    matchers = [Matcher(fact.answers) for fact in facts]
    draws = engine.sample(
        prompts,
        samples=options.samples,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        stop=lambda prompt, text: matchers[owners[prompt]].contains(text),
        advance=advance,
    )
    hits = [
        [matchers[owner].contains(draw.text) for draw in completions]
        for owner, completions in zip(owners, draws, strict=True)
    ]
    by_template = [sum(row) for row in hits]
    rows = [
        _row(fact, by_template[index * options.templates : (index + 1) * options.templates], options.trials)
        for index, fact in enumerate(facts)
    ]
    if keep_samples:
        samples = list(_sample_rows(facts, draws, hits, options.templates))
        write_parquet(parts / f"{name}.samples.parquet", pl.DataFrame(samples, schema=SAMPLES_SCHEMA, orient="row"))
    write_parquet(parts / f"{name}.parquet", pl.DataFrame(rows, schema=SCHEMA, orient="row"))


def _prompts(facts: Sequence[Fact], options: MasteryOptions) -> Iterator[Prompt]:
    for fact in facts:
        for index, text in enumerate(templates_for(fact)[: options.templates]):
            yield Prompt(text, key=f"{fact.id}\x1f{index}")


def _row(fact: Fact, template_hits: list[int], trials: int) -> tuple[Any, ...]:
    hits = sum(template_hits)
    return (
        fact.id,
        fact.topic,
        fact.subject,
        fact.question,
        list(fact.answers),
        fact.split,
        fact.domain,
        hits,
        trials,
        hits / trials,
        level(hits, trials),
        template_hits,
    )


def _sample_rows(
    facts: Sequence[Fact], draws: list[list[Completion]], hits: list[list[bool]], templates: int
) -> Iterator[tuple[Any, ...]]:
    for index, (completions, matched) in enumerate(zip(draws, hits, strict=True)):
        fact = facts[index // templates]
        for sample, (draw, hit) in enumerate(zip(completions, matched, strict=True)):
            yield (fact.id, index % templates, sample, draw.text, hit, draw.tokens, draw.finish)


def _block_name(facts: Sequence[Fact], options: MasteryOptions, model: str, keep_samples: bool) -> str:
    content = [
        model,
        options.model_dump(),
        keep_samples,
        [[fact.to_json(), *templates_for(fact)] for fact in facts],
    ]
    return digest_of(content)


def _gather(parts: Sequence[Path], out: Path) -> pl.DataFrame:
    table = pl.concat([pl.read_parquet(part) for part in parts])
    write_parquet(out, table)
    return table
