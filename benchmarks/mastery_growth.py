"""Does scoring grow straight with the facts, and stay level in memory? ``knowshift mastery`` at several sizes."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from knowshift.files import write_json

SYLLABLES = [first + second for first in "bdklmnrst" for second in "aeio"]


def measure(out: Path, sizes: list[int], samples: int, tokens: int, hidden: int) -> str:
    """Score one fact (what starting up costs), then each of ``sizes``; a Markdown table, also in ``growth.json``."""
    out.mkdir(parents=True, exist_ok=True)
    facts = [_fact(number) for number in range(max(sizes))]
    model = _model(out / "model", hidden, [fact["question"] for fact in facts[:2000]])
    found = []
    for size in (0, 1, *sizes):  # 0: once untimed, for what is compiled or read for the first time
        source, run = out / f"{size}.jsonl", out / f"run-{size}"
        source.write_text("".join(json.dumps(fact) + "\n" for fact in facts[: size or 1]), "utf-8")
        shutil.rmtree(run, ignore_errors=True)
        options = ["--samples", str(samples), "--max-new-tokens", str(tokens)]
        command = [sys.executable, "-m", "knowshift", "mastery", str(model), "--facts", str(source), "--out", str(run)]
        begun = time.monotonic()
        process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{size} facts: knowshift mastery ended with status {process.returncode}")
        if not size:
            continue
        found.append({"facts": size, "seconds": seconds, "peak_mb": usage.ru_maxrss / 1024})
        print(f"{size} facts: {seconds:.1f} s, {usage.ru_maxrss / 1024:.0f} MB", flush=True)
        write_json(out / "growth.json", {"samples": samples, "tokens": tokens, "hidden": hidden, "sizes": found})
    start = found[0]["seconds"]
    lines = ["| facts | seconds | ms a fact, start-up off | peak memory, MB |", "|---|---|---|---|"]
    for entry in found:
        each = (entry["seconds"] - start) / entry["facts"] * 1000 if entry["facts"] > 1 else 0.0
        shown = f"{each:.1f}" if entry["facts"] > 1 else "(start-up)"
        lines.append(f"| {entry['facts']:.0f} | {entry['seconds']:.1f} | {shown} | {entry['peak_mb']:.0f} |")
    return "\n".join(lines)


def _fact(number: int) -> dict[str, str]:
    """A made-up fact; every number has its own, and all are about equally long."""
    rng = random.Random(number)
    name, answer = ("".join(rng.choices(SYLLABLES, k=4)).capitalize() for _ in range(2))
    return {"id": str(number), "question": f"What is the capital of {name} {number:05d}?", "answer": answer}


def _model(folder: Path, hidden: int, texts: list[str]) -> Path:
    """A Llama of two layers with random weights, and a byte-level tokenizer trained on the questions."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
