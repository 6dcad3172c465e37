"""How fast `knowshift train` is, beside the script anybody would write with TRL.

    python benchmarks/train.py [--model smollm2] [--facts 240] [--turns 3] [--ways trl,knowshift,...]

Every way is a process of its own that loads the model, trains one epoch on the same facts in the same order (batch 8,
bfloat16 autocast where the processor has it) and writes a checkpoint. Ways take turns. Rates are of the updates alone;
tokens count without padding. The ceiling is the rate at which this machine multiplies the model's own matrices in the
number type of the run, the highest of the turns; a token costs three such passes, one forward and two back.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from knowshift.facts.prompts import qa_prompt
from knowshift.facts.sources import read_facts
from knowshift.models import has_bf16, load_model, resolve

# TRL as its own documentation uses it, with the paper's settings.
SCRIPT = """
import sys, torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
base, data, out, bf16 = sys.argv[1:]
cuda = torch.cuda.is_available()
trainer = SFTTrainer(
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
    args=SFTConfig(
        out, per_device_train_batch_size=8, num_train_epochs=1, learning_rate=1e-5, lr_scheduler_type="cosine", seed=0,
        logging_steps=1, bf16=bf16 == "True", use_cpu=not cuda, gradient_checkpointing=False, max_length=None,
        save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=cuda,
    ),
    train_dataset=load_dataset("json", data_files=data, split="train"),
    processing_class=AutoTokenizer.from_pretrained(base),
)
trainer.train()
trainer.save_model(out)
trainer.save_state()
"""
# Beside the script and the command with its defaults: what a setting changes.
SETTINGS = {
    "trl": (),
    "knowshift": (),
    "by length": ("train_sampling_strategy=group_by_length",),
    "padding-free": ("padding_free=true",),
    "packed": ("packing=true", "max_length=512"),
    "foreach AdamW": ("optim=adamw_torch",),
    "loop AdamW": ("optim=adamw_torch", "optim_args=foreach=False"),
}


def write_data(folder: Path, count: int) -> Path:
    """World facts in the paper's form."""
    path = folder / "train.jsonl"
    facts = read_facts("world", split="train")[:count]
    rows = ({"prompt": qa_prompt(fact.question), "completion": fact.answers[0]} for fact in facts)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def once(way: str, base: Path, data: Path, folder: Path, *, bf16: bool) -> dict[str, Any]:
    """One run of one way: seconds, seconds of updates, tokens, losses, highest memory."""
    out = folder / "out"
    if way == "trl":
        script = folder / "script.py"
        script.write_text(SCRIPT)
        command = [str(script), str(base), str(data), str(out), str(bf16)]
    else:
        sets = [word for text in SETTINGS[way] for word in ("--set", text)]
        command = ["-m", "knowshift", "train", str(base), "--data", str(data), "--out", str(out), *sets]
        command += ["--bf16" if bf16 else "--fp32"]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{way}: {process.stderr.read().decode() if process.stderr else status}")
    found = _trl(out) if way == "trl" else _ours(out)
    subprocess.run(["rm", "-r", str(out)], check=True)
    spent = usage.ru_utime + usage.ru_stime
    return {"way": way, "seconds": seconds, "cpu": spent, "gib": usage.ru_maxrss / 2**20, **found}


def _trl(out: Path) -> dict[str, Any]:
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in history if "loss" in entry]
    return {
        "updates": history[-1]["train_runtime"],
        "tokens": steps[-1]["num_tokens"],
        "losses": [entry["loss"] for entry in steps],
    }


def _ours(out: Path) -> dict[str, Any]:
    import polars as pl

    log = pl.read_parquet(out / "train_log.parquet")
    entry = json.loads((out / "run.json").read_text())
    return {"updates": entry["train_seconds"], "tokens": log["tokens"][-1], "losses": log["loss"].to_list()}


def ceiling(base: Path, *, bf16: bool, rows: int = 384) -> float:
    """Tokens a second, if every matrix of the model were multiplied three times and nothing else were done."""
    model = load_model(base, dtype="bfloat16" if bf16 else "float32")
    shapes = [tuple(module.weight.shape) for module in model.modules() if isinstance(module, torch.nn.Linear)]
    device, number = model.device, model.dtype
    seconds = 0.0
    for shape in set(shapes):
        weight = torch.randn(shape, device=device, dtype=number)
        hidden = torch.randn(rows, shape[1], device=device, dtype=number)
        best = float("inf")
        for _ in range(7):
            _wait(device)
            start = time.perf_counter()
            for _ in range(4):
                hidden @ weight.T
            _wait(device)
            best = min(best, (time.perf_counter() - start) / 4)
        seconds += best * shapes.count(shape)
    return rows / (3 * seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def table(runs: list[dict[str, Any]], top: float) -> str:
    """The fastest run of each way, and the spread of its turns."""
    lines = [
        "| | updates, s | slowest - fastest | tokens/s | share of the ceiling | whole command, s | processor, s |"
        " memory, GiB | loss, last |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for way in dict.fromkeys(run["way"] for run in runs):
        mine = [run for run in runs if run["way"] == way]
        best = min(mine, key=lambda run: run["updates"])
        spread = max(run["updates"] for run in mine) - best["updates"]
        rate = best["tokens"] / best["updates"]
        whole = statistics.median(run["seconds"] for run in mine)
        lines.append(
            f"| {way} | {best['updates']:.1f} | {spread:.1f} | {rate:.0f} | {rate / top:.0%} | {whole:.1f} | "
            f"{min(run['cpu'] for run in mine):.1f} | {max(run['gib'] for run in mine):.2f} | "
            f"{best['losses'][-1]:.6f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--facts", type=int, default=240)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--ways", default="trl,knowshift", help=", ".join(SETTINGS))
    parser.add_argument("--json", type=Path, help="append every run here")
    options = parser.parse_args()
    base = resolve(options.model)
    bf16 = has_bf16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    tops, runs = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder), options.facts)
        for _ in range(options.turns):
            tops.append(ceiling(base, bf16=bf16))
            for way in options.ways.split(","):
                runs.append(once(way, base, data, Path(folder), bf16=bf16))
                told = {name: value for name, value in runs[-1].items() if name != "losses"}
                print(json.dumps(told), flush=True)
                if options.json:
                    with options.json.open("a") as handle:
                        handle.write(json.dumps({**runs[-1], "ceiling": tops[-1]}) + "\n")
    print(f"ceiling: {max(tops):.0f} tokens/s, {torch.get_num_threads()} threads, {'bfloat16' if bf16 else 'float32'}")
    print(table(runs, max(tops)))


if __name__ == "__main__":
    main()
