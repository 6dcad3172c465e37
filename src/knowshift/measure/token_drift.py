"""How far fine-tuning moved the next-token distributions, fact by fact or window by window of a text.

`teacher`: both models read the same tokens, the trained prompt with the gold answer or any running text, and are
compared at every position over the whole vocabulary. `paper`: the paper's variant (section 4), where each model is
asked in its own way and only the first predicted token counts; as the two contexts differ, equal models do not give 0.

One model is in memory at a time: the base reads everything and leaves its hidden states on disk, then the
tuned model does, then the two heads are compared a few positions at a time. An adapter on its base is one model: it
reads everything twice, the adapter off and on.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.prompts import qa_prompt
from knowshift.facts.templates import templates_for
from knowshift.measure import drift_tables as tables
from knowshift.measure.compare import Reading, compare_all, compare_tops, read, read_adapted
from knowshift.measure.kl import Divergence
from knowshift.measure.passages import Passage, check_fit, gold_passages, prompt_passages
from knowshift.measure.sharing import Layout, layout
from knowshift.measure.texts import Window, read_documents, text_passages
from knowshift.memory import keep_freed_memory
from knowshift.models import contents, load_tokenizer, resident, same_tokenizer
from knowshift.models.load import compute_dtype, default_device, spread
from knowshift.seeds import derive

MODES = ("teacher", "paper")
BATCH_TOKENS = 2048
# The window of a text for a model without a longest context.
WINDOW = 2048

# Bytes of weights up to which the exact number type costs no time worth saving.
SMALL = 1 << 26


def drift(
    base: Path,
    tuned: Path,
    facts: Sequence[Fact] = (),
    *,
    text: Path | None = None,
    window: int | None = None,
    windows: int | None = None,
    mode: str = "teacher",
    levels: Mapping[str, int] | None = None,
    best_template: Mapping[str, int] | None = None,
    dtype: str = "auto",
    batch_tokens: int = BATCH_TOKENS,
    compiled: bool = False,
    seed: int = 0,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Compare the next-token distributions of two checkpoints that share a tokenizer.

    Args:
        base: checkpoint folder of the model before fine-tuning.
        tuned: the same of the model after; or a folder with a PEFT adapter. LoRA on this very ``base`` is not merged.
        facts: on what they are compared.
        text: instead of facts, a file of running text (``texts`` says which kinds there are).
        window: tokens of ``text`` read at once; default the models' context.
        windows: only so many windows, drawn at random under ``seed``.
        mode: `teacher` or `paper`.
        levels: mastery level of each fact by its id; a fact that is not there has none.
        best_template: for `paper`, by topic, the cloze template the base model is asked with (the one with
            most hits in a mastery run); a topic that is not there is asked with its first.
        dtype: number type the models compute in. `auto`: bfloat16 if both are stored in it, the processor
            computes in it and they are large enough for it to matter, else float32. Rounding to bfloat16 alone
            makes a drift of some thousandths of a nat; ask for float32 to measure less than that.
        batch_tokens: tokens read together; changes memory and speed, and figures by rounding only.
        compiled: run the models' blocks through ``torch.compile``; pays on long texts.
        seed: of the intervals and of what is drawn.

    Returns:
        One row a fact or window, in their order, and the figures of ``metrics.json``, as ``drift_tables`` describes
        them. KL is in nats.

    Raises:
        InputError: for different tokenizers or vocabularies, facts that cannot be read, logits that are not
            finite, or checkpoints that cannot be loaded.
    """
    if mode not in MODES:
        raise InputError(f"unknown drift mode {mode!r}: {' or '.join(MODES)}")
    if text is None and not facts:
        raise InputError("there are no facts to measure drift on")
    if text is not None and (facts or mode != "teacher"):
        raise InputError(f"{text}: a text is measured without facts and in mode teacher")
    for name, value, least in (("batch_tokens", batch_tokens, 1), ("window", window, 2), ("windows", windows, 1)):
        if value is not None and value < least:
            raise InputError(f"{name} must be at least {least}, not {value}")
    pair = _pair(base, tuned, dtype)
    # The tuned model's own: its end token is the one that training put after an answer.
    tokenizer = load_tokenizer(pair.plain)
    templates = _templates(facts, best_template or {}) if mode == "paper" else {}
    items: Sequence[tables.Item] = facts
    if text is None:
        reads = _passages(tokenizer, facts, templates)
    else:
        documents = read_documents(text, tokenizer)
        cut, items = text_passages(tokenizer, documents, _window(window, pair.context))
        cut, items = _drawn(cut, items, windows, seed)
        reads = cut, cut
    names = [f"fact {item.id!r}" if text is None else f"{text}, window {item.id}" for item in items]
    for passages in reads:
        check_fit(passages, names, context=pair.context, rows=pair.rows)
    words = min(pair.rows, max(tokenizer.get_vocab().values()) + 1)
    keep_freed_memory()

    with tempfile.TemporaryDirectory(prefix="knowshift-") as folder:
        shared = None if templates else layout(reads[1])
        readings = _read(pair, reads, Path(folder), batch_tokens=batch_tokens, compiled=compiled, shared=shared)
        if templates:
            table = tables.paper(facts, levels, templates, *compare_tops(*readings, words))
            details: dict[str, Any] = {"templates": templates}
        else:
            targets = torch.tensor([token for passage in reads[1] for token in passage.targets])
            assert shared is not None
            own = torch.empty(shared.starts[-1], dtype=torch.long)
            own[shared.rows] = targets
            compared = compare_all(*readings, own, words, compiled=compiled)
            everywhere = Divergence(*(column[shared.rows] for column in compared))
            positions = tables.positions(reads[1], targets, everywhere)
            table = tables.teacher(items, levels, positions)
            details = tables.by_token(items, positions, tokenizer)
    figures = tables.summarise(table, seed=seed)
    kind = str(pair.number_type).removeprefix("torch.")
    return table, {"mode": mode, "number_type": kind, "vocabulary": words} | figures | details


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two models that can be compared.

    Attributes:
        base: checkpoint.
        plain: the tuned model's checkpoint; the base's where only an adapter tells them apart.
        adapter: the adapter's folder in that case.
        rows: vocabulary rows.
        context: the shorter of their contexts, None without a limit.
        number_type: they compute in.
    """

    base: Path
    plain: Path
    adapter: Path | None
    rows: int
    context: int | None
    number_type: torch.dtype


def _pair(base: Path, tuned: Path, dtype: str) -> _Pair:
    adapter = None
    if resident.is_adapter(tuned):
        number_type = _number_type(base, base, dtype)
        # Spreading a model over devices and adapting it are not tried together.
        if resident.fits(base, tuned) and spread(base, number_type) is None:
            adapter, tuned = tuned, base
        else:
            from knowshift.models.adapter import merged

            tuned = merged(tuned)
    rows, context = _shapes(base, tuned)
    same_tokenizer(base, tuned)
    return _Pair(base, tuned, adapter, rows, context, _number_type(base, tuned, dtype))


def _read(
    pair: _Pair,
    reads: tuple[Sequence[Passage], Sequence[Passage]],
    folder: Path,
    *,
    batch_tokens: int,
    compiled: bool,
    shared: Layout | None,
) -> tuple[Reading, Reading]:
    files = folder / "base", folder / "tuned"
    if pair.adapter is not None:
        return read_adapted(
            pair.base,
            pair.adapter,
            reads,
            files,
            number_type=pair.number_type,
            batch_tokens=batch_tokens,
            compiled=compiled,
            shared=shared,
        )

    def reading(path: Path, side: int) -> Reading:
        return read(
            path,
            reads[side],
            files[side],
            number_type=pair.number_type,
            batch_tokens=batch_tokens,
            label=f"{files[side].name} model",
            compiled=compiled,
            shared=shared,
        )

    return reading(pair.base, 0), reading(pair.plain, 1)


def _window(asked: int | None, context: int | None) -> int:
    if asked is None:
        return context or WINDOW
    if context is not None and asked > context:
        raise InputError(f"a window of {asked} tokens is longer than the models' context of {context}")
    return asked


def _drawn(
    passages: list[Passage], items: list[Window], count: int | None, seed: int
) -> tuple[list[Passage], list[Window]]:
    """``count`` windows drawn at random, in their own order; fewer are part of more."""
    order = sorted(range(len(items)), key=lambda index: derive(seed, "limit", items[index].id))
    kept = sorted(order[:count])
    return [passages[index] for index in kept], [items[index] for index in kept]


def _passages(
    tokenizer: Any, facts: Sequence[Fact], templates: Mapping[str, int]
) -> tuple[list[Passage], list[Passage]]:
    """What the base and what the tuned model reads for each fact; ``templates`` are for `paper` alone."""
    if not templates:
        passages = gold_passages(tokenizer, facts)
        return passages, passages
    clozes = [templates_for(fact)[templates[fact.topic]] for fact in facts]
    questions = [qa_prompt(fact.question) for fact in facts]
    return prompt_passages(tokenizer, facts, clozes), prompt_passages(tokenizer, facts, questions)


def _templates(facts: Sequence[Fact], best: Mapping[str, int]) -> dict[str, int]:
    chosen = {fact.topic: best.get(fact.topic, 0) for fact in facts}
    for fact in facts:
        if not 0 <= chosen[fact.topic] < len(templates_for(fact)):
            raise InputError(f"topic {fact.topic!r} has no template {chosen[fact.topic]}")
    return chosen


def _number_type(base: Path, tuned: Path, dtype: str) -> torch.dtype:
    if dtype == "auto":
        stored = {contents.main_type(path) for path in (base, tuned)}
        size = sum(file.stat().st_size for file in contents.weight_files(tuned))
        halved = stored == {"BF16"} and size > SMALL
        return compute_dtype(default_device()) if halved else torch.float32
    chosen = getattr(torch, dtype, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise InputError(f"unknown number type {dtype!r}: auto, float32, bfloat16 or float16")
    return chosen


def _shapes(base: Path, tuned: Path) -> tuple[int, int | None]:
    """Vocabulary rows of the two models, which must agree, and the shorter of their contexts."""
    from transformers import AutoConfig

    rows: list[int] = []
    contexts: list[int] = []
    for path in (base, tuned):
        try:
            config = AutoConfig.from_pretrained(contents.check(path), local_files_only=True).get_text_config()
        except (ValueError, KeyError, OSError) as error:
            raise InputError(f"{path / 'config.json'}: {str(error).strip().splitlines()[0]}") from error
        rows.append(int(config.vocab_size))
        contexts.append(int(getattr(config, "max_position_embeddings", None) or 0))
    if rows[0] != rows[1]:
        raise InputError(f"not comparable: {base} has {rows[0]} vocabulary rows, {tuned} has {rows[1]}")
    return rows[0], min((length for length in contexts if length), default=None)
