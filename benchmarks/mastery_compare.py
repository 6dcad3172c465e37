"""Engines take turns on the same facts; every turn is timed, judged and written down at once."""

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from mastery_ceiling import Needed, Rate, needed, shapes_of
from mastery_engines import Generate, Knowshift, Rival, Vllm, Work, end_tokens
from mastery_table import write

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.sources import read_facts
from knowshift.generate.encode import encode
from knowshift.mastery.ask import Asked, MasteryOptions, ask
from knowshift.models import load_model, load_tokenizer, resolve
from knowshift.seeds import derive

__all__ = ["Comparison", "Work"]


class Comparison:
    """One run: facts, engines, and what has come of them so far."""

    def __init__(self, out: Path, model: str, work: Work) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.work, self.path = out, work, resolve(model)
        self.model, self.tokenizer = load_model(self.path), load_tokenizer(self.path)
        self.rate, shapes = Rate(self.model), shapes_of(self.model)
        self.rivals: dict[str, Rival] = {}
        self.asked: list[Asked] = []
        self.about: dict[str, Any] = {
            "model": model,
            **vars(work),
            "shapes": vars(shapes),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "load_average_before": os.getloadavg()[0],
        }

    def choose(self, source: str, split: str, topics: Sequence[str], limit: int, templates: int) -> None:
        """Draw ``limit`` facts evenly from the topics, and one more to warm up with."""
        facts = [fact for fact in read_facts(source, split=split or None) if not topics or fact.topic in topics]
        if len(facts) <= limit:
            raise InputError(f"{source}: {limit + 1} facts are needed, found {len(facts)}")
        work = self.work
        options = MasteryOptions(
            templates=templates, samples=work.samples, max_new_tokens=work.tokens, temperature=work.temperature
        )
        self.asked = [ask(fact, options) for fact in _evenly(facts, limit + 1, work.seed)]
        self.about |= {"facts": source, "split": split, "topics": list(topics), "limit": limit, "templates": templates}

    def load(self, names: Sequence[str], vllm_python: Path | None, generate_batch: int | None) -> None:
        """Load the engines and let each answer once untimed: compilation, first touches, the size of batches."""
        for name in names:
            if name == "knowshift":
                self.rivals[name] = Knowshift(self.model, self.tokenizer)
            elif name == "generate":
                self.rivals[name] = Generate(self.model, self.tokenizer, generate_batch)
            else:
                assert vllm_python is not None
                log = self.out / "vllm.log"
                dtype = str(self.model.dtype).removeprefix("torch.")
                self.rivals[name] = Vllm(vllm_python, self.path, self.tokenizer, log, dtype)
        for rival in self.rivals.values():
            warm = self.asked[:2] if isinstance(rival, Generate) else self.asked[-1:]
            rival.answer(*_split(warm), self.work)

    def run(self, chunk: int) -> None:
        """Every engine answers every chunk of facts; who begins changes from chunk to chunk."""
        self.about["chunk"] = chunk
        self.about["engines"] = {name: rival.settings for name, rival in self.rivals.items()}
        facts, names = self.asked[:-1], list(self.rivals)
        turns: list[dict[str, Any]] = []
        log = self.out / "turns.jsonl"
        with log.open("w", encoding="utf-8") as handle:
            for number, start in enumerate(range(0, len(facts), chunk)):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    turns.append({"chunk": number, "engine": name, **self.turn(name, facts[start : start + chunk])})
                    print(json.dumps(turns[-1]), file=handle, flush=True)
                    write(self.out, self.about, turns)
                    print(
                        f"chunk {number} {name}: {turns[-1]['draws'] / turns[-1]['seconds']:.2f} samples/s", flush=True
                    )

    def turn(self, name: str, asked: Sequence[Asked]) -> dict[str, Any]:
        """One engine, some facts: seconds with judging, hits by prompt, and what the ceiling is made from."""
        prompts, matchers = _split(asked)
        rival, waiting = self.rivals[name], self.rivals.get("vllm")
        busy = waiting.busy_seconds() if isinstance(waiting, Vllm) else 0.0
        answered = rival.answer(prompts, matchers, self.work)
        begun = time.monotonic()
        hits = [sum(map(own.contains, texts)) for own, texts in zip(matchers, answered.texts, strict=True)]
        seconds = answered.seconds + time.monotonic() - begun
        entry: dict[str, Any] = {"seconds": seconds, "draws": sum(map(len, answered.texts)), "hits": hits}
        if isinstance(waiting, Vllm) and waiting is not rival:
            entry["vllm_busy_share"] = (waiting.busy_seconds() - busy) / seconds
        if isinstance(rival, Knowshift):
            entry |= rival.fed()
            entry["rate"] = self.rate.measure(max(1, round(entry["rows"])))
        if answered.ids:
            ends, lengths = end_tokens(self.model), map(len, encode(self.tokenizer, prompts))
            parts = (
                needed(length, ids, self.tokenizer, matcher, ends)
                for length, ids, matcher in zip(lengths, answered.ids, matchers, strict=True)
            )
            entry["needed"] = vars(sum(parts, Needed()))
        return entry

    def close(self) -> None:
        """End the processes that were started."""
        for rival in self.rivals.values():
            rival.close()


def _evenly(facts: Sequence[Fact], count: int, seed: int) -> list[Fact]:
    """``count`` facts drawn under ``seed``, topics in turn: the first ones are spread evenly over them too."""
    order = sorted(facts, key=lambda fact: derive(seed, "benchmark", fact.id))
    place: dict[str, int] = {}
    turns = []
    for fact in order:
        place[fact.topic] = place.get(fact.topic, -1) + 1
        turns.append(place[fact.topic])
    ranked = sorted(range(len(order)), key=lambda index: (turns[index], order[index].topic))
    return [order[index] for index in ranked[:count]]


def _split(asked: Sequence[Asked]) -> tuple[list[Any], list[Any]]:
    """The prompts of some facts, and for each prompt its matcher."""
    return [prompt for one in asked for prompt in one.prompts], [one.matcher for one in asked for _ in one.prompts]
