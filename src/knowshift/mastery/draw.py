"""Ask the engine for the draws a store lacks, block by block.

A block is made of facts in the order given, until about ``BATCHES`` full batches of draws are lacking; it is
decoded and then written as one file. Facts that lack nothing add nothing to a block. So after a kill the blocks
that were written fall away and the others are what they were: the same command decodes the same draws together,
and ends with the same bits.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from knowshift.facts.fact import Fact
from knowshift.facts.matching import Matcher
from knowshift.generate.engine import Completion, Engine, Prompt
from knowshift.mastery.ask import MasteryOptions, ask
from knowshift.mastery.parts import RECORD
from knowshift.mastery.store import Span, Store
from knowshift.memory import return_freed_memory

# Draws in one block, in batches of the engine: enough prompts of each length to fill a batch, few enough that a
# kill costs little.
BATCHES = 16


@dataclass(slots=True)
class Tally:
    """What a run took from the store, what it drew itself, and how long that took.

    Attributes:
        stored: draws taken from the store.
        made: draws made now.
        greedy: greedy continuations made now.
        tokens: tokens in the completions made now.
        seconds: time in the engine.
    """

    stored: int = 0
    made: int = 0
    greedy: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Job:
    """One prompt with draws to make."""

    prompt: Prompt
    key: tuple[int, int]
    matcher: Matcher
    span: Span


def fill(
    store: Store,
    engine: Engine,
    facts: Sequence[Fact],
    options: MasteryOptions,
    *,
    texts: bool,
    advance: Callable[[int], None],
) -> Tally:
    """Make every draw that ``store`` lacks for ``facts``. ``advance`` is told of every prompt that is complete."""
    tally = Tally()
    block: list[_Job] = []
    draws = 0
    for prompts, jobs in _jobs(store, facts, options, texts):
        advance(prompts - len(jobs))
        tally.stored += (prompts - len(jobs)) * options.samples
        tally.stored += sum(min(job.span.first, options.samples) for job in jobs)
        block += jobs
        draws += sum(job.span.samples + job.span.greedy for job in jobs)
        if draws >= BATCHES * engine.rows:
            store.add(_decode(engine, block, options, texts, tally, advance))
            block, draws = [], 0
            return_freed_memory()  # so that memory stays flat in the number of facts
    if block:
        store.add(_decode(engine, block, options, texts, tally, advance))
    return tally


def _jobs(
    store: Store, facts: Sequence[Fact], options: MasteryOptions, texts: bool
) -> Iterator[tuple[int, list[_Job]]]:
    """For each fact, how many prompts it has and those that lack draws."""
    for fact in facts:
        asked = ask(fact, options)
        spans = store.lacking(asked.keys, options.samples, greedy=options.slick, texts=texts)
        names = [(high, low) for high, low in asked.keys.tolist()]
        yield (
            len(asked.prompts),
            [
                _Job(prompt, name, asked.matcher, span)
                for prompt, name, span in zip(asked.prompts, names, spans, strict=True)
                if span is not None
            ],
        )


def _decode(
    engine: Engine,
    block: Sequence[_Job],
    options: MasteryOptions,
    texts: bool,
    tally: Tally,
    advance: Callable[[int], None],
) -> pl.DataFrame:
    """The records of a block: prompts that lack the same draws are decoded together."""
    groups: dict[Span, list[_Job]] = {}
    for job in block:
        groups.setdefault(job.span, []).append(job)
    rows = []
    for span in sorted(groups):
        jobs = groups[span]
        begun = time.monotonic()
        completions = engine.sample(
            [job.prompt for job in jobs],
            samples=span.samples,
            first=span.first,
            greedy=span.greedy,
            temperature=options.temperature,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            stop=_Settled(jobs),
            advance=advance,
        )
        tally.seconds += time.monotonic() - begun
        tally.made += span.samples * len(jobs)
        tally.greedy += span.greedy * len(jobs)
        tally.tokens += sum(draw.tokens for draws in completions for draw in draws)
        rows += [_record(job, draws, texts) for job, draws in zip(jobs, completions, strict=True)]
    return pl.DataFrame(rows, schema=RECORD, orient="row")


class _Settled:
    """The stop test of a group: a draw may end once both verdicts on it stand."""

    def __init__(self, jobs: Sequence[_Job]) -> None:
        self._matchers = [job.matcher for job in jobs]

    def __call__(self, prompt: int, text: str) -> bool:
        return self._matchers[prompt].settled(text)


def _record(job: _Job, completions: Sequence[Completion], texts: bool) -> tuple[object, ...]:
    verdicts: dict[str, tuple[bool, bool]] = {}
    for draw in completions:
        if draw.text not in verdicts:
            verdicts[draw.text] = (job.matcher.contains(draw.text), job.matcher.strict(draw.text))
    draws = completions[: job.span.samples]
    greedy = verdicts[completions[-1].text] if job.span.greedy else (None, None)
    return (
        *job.key,
        job.span.first,
        job.span.samples,
        [verdicts[draw.text][0] for draw in draws],
        [verdicts[draw.text][1] for draw in draws],
        *greedy,
        texts,
        [draw.text for draw in draws] if texts else None,
        [draw.tokens for draw in draws] if texts else None,
        [draw.finish for draw in draws] if texts else None,
    )
