"""How far fine-tuning moved the next-token distributions, fact by fact.

`teacher`: both models read the same tokens, the trained prompt with the gold answer, and are compared at every
position over the whole vocabulary. `paper`: the paper's variant (section 4), where each model is asked in its
own way and only the first predicted token counts; as the two contexts differ, equal models do not give 0.

One model is in memory at a time: the base reads everything and leaves its hidden states on disk, then the
tuned model does, then the two heads are compared a few positions at a time.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.prompts import qa_prompt
from knowshift.facts.templates import templates_for
from knowshift.measure import drift_tables as tables
from knowshift.measure.compare import Reading, compare_all, compare_tops, read
from knowshift.measure.passages import Passage, check_fit, gold_passages, prompt_passages
from knowshift.models import contents, load_tokenizer, same_tokenizer
from knowshift.models.load import compute_dtype, default_device

MODES = ("teacher", "paper")
BATCH_TOKENS = 4096

# Bytes of weights up to which the exact number type costs no time worth saving.
SMALL = 1 << 26


def drift(
    base: Path,
    tuned: Path,
    facts: Sequence[Fact],
    *,
    mode: str = "teacher",
    levels: Mapping[str, int] | None = None,
    best_template: Mapping[str, int] | None = None,
    dtype: str = "auto",
    batch_tokens: int = BATCH_TOKENS,
    seed: int = 0,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Compare the next-token distributions of two checkpoints that share a tokenizer.

    Args:
        base: checkpoint folder of the model before fine-tuning.
        tuned: the same of the model after.
        facts: on what they are compared.
        mode: `teacher` or `paper`.
        levels: mastery level of each fact by its id; a fact that is not there has none.
        best_template: for `paper`, by topic, the cloze template the base model is asked with (the one with
            most hits in a mastery run); a topic that is not there is asked with its first.
        dtype: number type the models compute in. `auto`: bfloat16 if both are stored in it, the processor
            computes in it and they are large enough for it to matter, else float32. Rounding to bfloat16 alone
            makes a drift of some thousandths of a nat; ask for float32 to measure less than that.
        batch_tokens: tokens read together; changes memory and speed, and figures by rounding only.
        seed: of the intervals.

    Returns:
        One row a fact, in their order, and the figures of ``metrics.json``, as ``drift_tables`` describes
        them. KL is in nats.

    Raises:
        InputError: for different tokenizers or vocabularies, facts that cannot be read, logits that are not
            finite, or checkpoints that cannot be loaded.
    """
    if mode not in MODES:
        raise InputError(f"unknown drift mode {mode!r}: {' or '.join(MODES)}")
    if not facts:
        raise InputError("there are no facts to measure drift on")
    if batch_tokens < 1:
        raise InputError(f"batch_tokens must be at least 1, not {batch_tokens}")
    rows, context = _shapes(base, tuned)
    same_tokenizer(base, tuned)
    # The tuned model's own: its end token is the one that training put after an answer.
    tokenizer = load_tokenizer(tuned)
    templates = _templates(facts, best_template or {}) if mode == "paper" else {}
    base_reads, tuned_reads = _passages(tokenizer, facts, templates)
    for passages in (base_reads, tuned_reads):
        check_fit(passages, facts, context=context, rows=rows)
    words = min(rows, max(tokenizer.get_vocab().values()) + 1)
    number_type = _number_type(base, tuned, dtype)

    with tempfile.TemporaryDirectory(prefix="knowshift-") as folder:

        def reading(name: str, path: Path, passages: Sequence[Passage]) -> Reading:
            file = Path(folder) / name
            return read(path, passages, file, number_type=number_type, batch_tokens=batch_tokens, label=f"{name} model")

        pair = reading("base", base, base_reads), reading("tuned", tuned, tuned_reads)
        if templates:
            table = tables.paper(facts, levels, templates, *compare_tops(*pair, words))
            details: dict[str, Any] = {"templates": templates}
        else:
            targets = [token for passage in tuned_reads for token in passage.targets]
            positions = tables.positions(tuned_reads, targets, compare_all(*pair, targets, words))
            table = tables.teacher(facts, levels, positions)
            details = tables.by_token(facts, positions, tokenizer)
    figures = tables.summarise(table, seed=seed)
    kind = str(number_type).removeprefix("torch.")
    return table, {"mode": mode, "number_type": kind, "vocabulary": words} | figures | details


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
