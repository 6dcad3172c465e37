"""Self-distill: the base says part of the training answers itself, so that learning them moves it less.

Of the n examples floor(n * share), drawn under the seed, get another completion. ``rewrite`` shows the base the
example with its completion and asks for the same in its own words; with ``check``, what it says is taken where the
completion occurs in it, else the example stays as it is. ``answer`` takes what the base itself answers to the bare
prompt, right or wrong: its behaviour is rehearsed, not the data. Prompts from ``prompts`` are answered by the base and
added to the data: a replay for which nobody needs the data the base was trained on.

Source: SDFT (Yang et al., arXiv 2402.13669) for ``rewrite``.

Cost: one generated answer for each chosen example and prompt, before training. What was trained on is written beside
the checkpoint, line by line, in ``examples.jsonl``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PrivateAttr

from knowshift.errors import InputError
from knowshift.train.data import Pair
from knowshift.train.methods.method import Method, Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = "examples.jsonl"


class SelfDistill(Method):
    """Completions, or whole examples, that the base wrote."""

    title: ClassVar[str] = "Self-distillation"
    source: ClassVar[str] = "rewriting: SDFT, Yang et al., arXiv 2402.13669; answers and replay: common practice"

    share: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False, description="of the examples, to say anew")
    by: Literal["rewrite", "answer"] = Field(default="rewrite", description="with the completion shown, or without")
    check: bool = Field(default=True, description="rewritten, the completion must occur in it; else it stays")
    prompts: Path | None = Field(default=None, description='JSONL with "prompt": answered and added to the data')
    temperature: float = Field(default=0, ge=0, allow_inf_nan=False, description="0: the likeliest answer")
    max_new_tokens: int = Field(default=64, ge=1, description="of an answer; cut off, it ends with a sentence")

    _rows: list[dict[str, object]] = PrivateAttr(default_factory=list)

    def examples(self, model: PreTrainedModel, run: Run) -> list[Pair]:
        """The data with the base's own words in it.

        Raises:
            InputError: an unreadable file of prompts, or prompts too long for the model.
        """
        from knowshift.generate.engine import Prompt
        from knowshift.progress import console
        from knowshift.seeds import derive
        from knowshift.train.gradients import shuffled
        from knowshift.train.own_answers import answers, rewriting
        from knowshift.weights.ranking import exact

        extra = [] if self.prompts is None else read_prompts(self.prompts)
        share, seed = exact(self.share), derive(run.options.seed, "self-distill")
        chat = bool(getattr(run.tokenizer, "chat_template", None))
        count = len(run.pairs) * share.numerator // share.denominator
        places = sorted(shuffled(len(run.pairs), seed)[:count])
        asked = [
            rewriting(pair.prompt, pair.completion, f"data {pair.line}", chat=chat)
            if self.by == "rewrite"
            else Prompt(pair.prompt, f"data {pair.line}")
            for pair in (run.pairs[place] for place in places)
        ]
        asked += [Prompt(text, f"prompt {line}") for line, text in extra]
        said = answers(
            model,
            run.tokenizer,
            asked,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            seed=seed,
            lines=range(0 if chat or self.by == "answer" else len(places)),
        )
        own = dict(zip(places, said, strict=False))
        pairs = [self._made(pair, own.get(place)) for place, pair in enumerate(run.pairs)]
        for (line, prompt), text in zip(extra, said[len(places) :], strict=True):
            if text:
                pairs.append(Pair(prompt, text, line))
                self._rows.append({"prompt": prompt, "completion": text, "by": "base", "line": line})
        kept = sum("data_completion" in row for row in self._rows)
        console.print(
            f"note: the base wrote {kept} of {len(run.pairs)} completions"
            + (f" and answered {len(pairs) - len(run.pairs)} of {len(extra)} prompts" if extra else "")
            + f"; see {FILE}",
            soft_wrap=True,
        )
        return pairs

    def leave(self, folder: Path) -> None:
        """Write what was trained on."""
        from knowshift.facts.fact import write_jsonl

        write_jsonl(folder / FILE, (json.dumps(row, ensure_ascii=False) for row in self._rows))

    def _made(self, pair: Pair, said: str | None) -> Pair:
        """The example with the base's completion where there is a usable one."""
        from knowshift.facts.matching import contains

        row: dict[str, object] = {"prompt": pair.prompt, "completion": pair.completion, "by": "data", "line": pair.line}
        needed = self.by == "rewrite" and self.check
        if said and not (needed and not contains(said, [pair.completion.strip()])):
            said = said.strip() if self.by == "rewrite" else said
            row |= {"completion": said, "by": "base", "data_completion": pair.completion}
            turns = (*pair.turns[:-1], {**pair.turns[-1], "content": said}) if pair.turns else ()
            pair = replace(pair, completion=said, turns=turns)
        self._rows.append(row)
        return pair


def read_prompts(path: Path) -> list[tuple[int, str]]:
    """The prompts of a JSONL file with their line numbers; other keys are ignored.

    Raises:
        InputError: naming file and line.
    """
    from knowshift.facts.fact import read_rows

    found = []
    for number, row in read_rows(path):
        text = row.get("prompt")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f'{path}:{number}: "prompt" is missing, empty or no text')
        found.append((number, text))
    if not found:
        raise InputError(f"{path}: no prompts in this file")
    return found
