"""How fast is `knowshift eval`? Beside plain ``generate`` and lm-evaluation-harness: one run, the same questions.

    python benchmarks/measure_eval.py --model smollm2 --facts entityquestions:PATH --limit 2000 --out DIR

All three answer greedily with the same model, up to the same number of new tokens, and take turns, some facts at a
time. ``generate`` gets prompts padded on the left, in the order of the facts. Of the harness only its
``generate_until`` on a local JSON task is timed, not how it loads tasks and sums up; knowshift's time is all of
``evaluate``, log-probabilities of the right answers and matching included. What is finished stands in
``DIR/turns.jsonl``, the table is written anew after every turn.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from knowshift.facts.fact import Fact
from knowshift.facts.sources import read_facts
from knowshift.files import make_folder
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.measure.accuracy import evaluate
from knowshift.measure.forms import put
from knowshift.models import load_model, load_tokenizer, resolve
from knowshift.steps import choose, draw_shots

TASK = """task: knowshift_benchmark
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: {until}, max_gen_toks: {tokens}, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
Turn = Callable[[Sequence[Fact]], tuple[float, list[str]]]


@dataclass(frozen=True)
class Work:
    """What all are asked."""

    form: str
    shots: list[Fact]
    tokens: int
    batch: int

    def prompt(self, fact: Fact) -> str:
        return put(fact.question, self.form, self.shots).text

    def answer(self, text: str) -> str:
        """What of a text is compared: after solved examples its first line."""
        return text.strip().split("\n")[0] if self.form == "few-shot" else text.strip()


def knowshift(model: Any, tokenizer: Any, work: Work) -> Turn:
    engine = TransformersEngine(model, tokenizer)

    def turn(facts: Sequence[Fact]) -> tuple[float, list[str]]:
        start = time.perf_counter()
        table = evaluate(engine, facts, max_new_tokens=work.tokens, form=work.form, shots=work.shots)
        return time.perf_counter() - start, table["text"].to_list()

    return turn


def generate(model: Any, tokenizer: Any, work: Work) -> Turn:
    @torch.inference_mode()
    def turn(facts: Sequence[Fact]) -> tuple[float, list[str]]:
        start, texts = time.perf_counter(), []
        for first in range(0, len(facts), work.batch):
            prompts = [work.prompt(fact) for fact in facts[first : first + work.batch]]
            read = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
            said = model.generate(
                input_ids=read.input_ids,
                attention_mask=read.attention_mask,
                max_new_tokens=work.tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
            texts += tokenizer.batch_decode(said[:, read.input_ids.shape[1] :], skip_special_tokens=True)
        return time.perf_counter() - start, texts

    return turn


def harness(model: Any, tokenizer: Any, work: Work, out: Path) -> Turn:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    class Timed(HFLM):  # type: ignore[misc]
        def generate_until(self, requests: Any, *given: Any, **options: Any) -> list[str]:
            start = time.perf_counter()
            self.said = super().generate_until(requests, *given, **options)
            self.seconds = time.perf_counter() - start
            return list(self.said)

    lm = Timed(pretrained=model, tokenizer=tokenizer, batch_size=work.batch)
    place = make_folder(out / "task")
    until = '["\\n"]' if work.form == "few-shot" else "[]"

    def turn(facts: Sequence[Fact]) -> tuple[float, list[str]]:
        data = place / f"{facts[0].id.replace('/', '_')}.jsonl"
        rows = ({"prompt": work.prompt(fact), "answer": fact.answers[0]} for fact in facts)
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        (place / "task.yaml").write_text(TASK.format(data=data, until=until, tokens=work.tokens), "utf-8")
        manager = TaskManager(include_path=str(place), include_defaults=False)
        lm_eval.simple_evaluate(
            model=lm, tasks=["knowshift_benchmark"], task_manager=manager, log_samples=False, bootstrap_iters=0
        )
        return lm.seconds, lm.said

    return turn


def table_of(turns: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(turn["name"] for turn in turns))
    whole = min(sum(turn["facts"] for turn in turns if turn["name"] == name) for name in names)
    lines = ["| | facts | seconds | facts/s | knowshift is faster by | same texts |", "|---|---|---|---|---|---|"]
    rates = {}
    for name in names:
        own = [turn for turn in turns if turn["name"] == name]
        facts, seconds = sum(turn["facts"] for turn in own), sum(turn["seconds"] for turn in own)
        rates[name] = facts / seconds
        same = sum(turn["same"] for turn in own) / facts
        lines.append(
            f"| {name} | {facts} | {seconds:.1f} | {rates[name]:.1f} | {rates['knowshift'] / rates[name]:.2f} x "
            f"| {same:.1%} |"
        )
    return "\n".join([*lines, "", f"{whole} facts by all."]) + "\n"


def main(
    out: Annotated[Path, typer.Option(help="Folder for the figures.")],
    model: Annotated[str, typer.Option(help="Model folder or name.")] = "smollm2",
    facts: Annotated[str, typer.Option(help="Facts, as `knowshift eval --facts` takes them.")] = "world",
    split: Annotated[str, typer.Option(help="Split of the facts.")] = "test",
    limit: Annotated[int, typer.Option(min=1, help="Facts in all.")] = 2000,
    form: Annotated[str, typer.Option(help="trained, plain or few-shot.")] = "trained",
    tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 16,
    batch: Annotated[int, typer.Option(min=1, help="Prompts in a batch of generate and of the harness.")] = 64,
    chunk: Annotated[int, typer.Option(min=1, help="Facts in a turn.")] = 500,
    engines: Annotated[str, typer.Option(help="Which take part, with commas between.")] = "knowshift,generate,lm-eval",
    seed: Annotated[int, typer.Option(help="Draws the facts and their order.")] = 0,
) -> None:
    import random

    folder = resolve(model)
    asked = choose(read_facts(facts, split=split), limit, seed)
    random.Random(seed).shuffle(asked)
    work = Work(form, draw_shots(facts, asked, seed) if form == "few-shot" else [], tokens, batch)
    make_folder(out)
    wanted = engines.split(",")
    makers: dict[str, Callable[[Any, Any], Turn]] = {
        "knowshift": lambda loaded, tokenizer: knowshift(loaded, tokenizer, work),
        "generate": lambda loaded, tokenizer: generate(loaded, tokenizer, work),
        "lm-eval": lambda loaded, tokenizer: harness(loaded, tokenizer, work, out),
    }
    turn_of = {name: makers[name](load_model(folder), load_tokenizer(folder)) for name in wanted}
    for turn in turn_of.values():
        turn(asked[:8])  # what is compiled or loaded on first use
    turns: list[dict[str, Any]] = []
    for first in range(0, len(asked), chunk):
        some = asked[first : first + chunk]
        reference: list[str] = []
        for name, turn in turn_of.items():
            seconds, texts = turn(some)
            reference = reference or texts
            same = sum(work.answer(a) == work.answer(b) for a, b in zip(texts, reference, strict=True))
            turns.append({"name": name, "facts": len(some), "seconds": seconds, "same": same})
        (out / "turns.jsonl").write_text("".join(json.dumps(turn) + "\n" for turn in turns), "utf-8")
        (out / "table.md").write_text(table_of(turns), "utf-8")
    typer.echo((out / "table.md").read_text("utf-8"))


if __name__ == "__main__":
    typer.run(main)
