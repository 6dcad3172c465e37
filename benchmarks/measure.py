"""How fast and how small drift is, beside the loop anybody would write first.

    python benchmarks/measure.py drift --tuned CHECKPOINT --facts entityquestions:PATH
    python benchmarks/measure.py memory

`drift`: knowshift's `drift --mode teacher`, then a plain loop over the very same batches (both models resident, whole
logits, ``F.kl_div`` both ways), then the two forward passes without the output layer and the rate at which this machine
multiplies hidden states with the output layer. Loading counts in the first two. `memory`: the highest memory of a
process that measures drift between two models of a 256,000-word vocabulary.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from knowshift.facts.sources import read_facts
from knowshift.measure.passages import Passage, batches, gold_passages
from knowshift.measure.token_drift import BATCH_TOKENS, drift
from knowshift.models import load_model, load_tokenizer, resolve
from knowshift.steps import choose

WORDS = 256_000


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def padded(passages: Sequence[Passage], members: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask of one batch."""
    width = max(len(passages[index].ids) for index in members)
    ids = torch.zeros(len(members), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, index in enumerate(members):
        own = passages[index].ids
        ids[row, : len(own)], mask[row, : len(own)] = torch.tensor(own), 1
    return ids, mask


@torch.inference_mode()
def plain_loop(base: Path, tuned: Path, passages: Sequence[Passage], dtype: torch.dtype) -> float:
    """Mean KL(tuned || base) over the answers' tokens, facts counting alike, as one would write it in twenty lines."""
    models = [load_model(path, dtype=dtype) for path in (base, tuned)]
    means = []
    for members in batches([passage.ids for passage in passages], BATCH_TOKENS):
        ids, mask = padded(passages, members)
        left, right = (model(input_ids=ids, attention_mask=mask).logits.float() for model in models)
        left, right = left.log_softmax(-1), right.log_softmax(-1)
        forward = F.kl_div(left, right, log_target=True, reduction="none").sum(-1)
        backward = F.kl_div(right, left, log_target=True, reduction="none").sum(-1)
        agree = left.argmax(-1) == right.argmax(-1)
        for row, index in enumerate(members):
            passage = passages[index]
            stop = len(passage.ids) - passage.end
            answer = slice(stop - passage.answer, stop)
            means.append(float(forward[row, answer].mean()))
            float(backward[row, answer].mean()), float(agree[row, answer].float().mean())
    return sum(means) / len(means)


@torch.inference_mode()
def bodies(base: Path, tuned: Path, passages: Sequence[Passage], dtype: torch.dtype) -> float:
    """Seconds of both forward passes without the output layer, over the same batches."""
    seconds = 0.0
    for path in (base, tuned):
        model = load_model(path, dtype=dtype)
        for members in batches([passage.ids for passage in passages], BATCH_TOKENS):
            ids, _ = padded(passages, members)
            seconds += timed(lambda model=model, ids=ids: model.base_model(input_ids=ids, use_cache=False))[0]
    return seconds


@torch.inference_mode()
def head_rate(rows: int, width: int, dtype: torch.dtype, seconds: float = 4.0) -> float:
    """Operations a second at which this machine multiplies states with an output layer, at its best row count."""
    weights = torch.randn(rows, width).to(dtype)
    best = 0.0
    for positions in (128, 256, 512, 1024):
        states = torch.randn(positions, width).to(dtype)
        taken, until = [], time.perf_counter() + seconds / 4
        while time.perf_counter() < until or len(taken) < 3:
            taken.append(timed(lambda states=states: F.linear(states, weights))[0])
        best = max(best, 2 * positions * width * rows / min(taken))
    return best


def part(options: argparse.Namespace) -> dict[str, Any]:
    """One of the runs, in a process of its own: what one does to the memory's settings is not another's gain."""
    base, tuned = resolve(options.base), resolve(options.tuned)
    facts = choose(read_facts(options.facts, split=options.split), options.limit, options.seed)
    tokenizer = load_tokenizer(tuned)  # what is imported for it is imported by all
    if options.part == "ours":
        seconds, (_, metrics) = timed(lambda: drift(base, tuned, facts, seed=options.seed))
        return {"seconds": seconds, "kl": metrics["kl_tuned_base"], "number_type": metrics["number_type"]}
    dtype = getattr(torch, options.dtype)
    passages = gold_passages(tokenizer, facts)
    if options.part == "plain":
        seconds, kl = timed(lambda: plain_loop(base, tuned, passages, dtype))
        return {"seconds": seconds, "kl": kl}
    rows, width = load_model(base, dtype=dtype).get_output_embeddings().weight.shape
    flop = 2 * 2 * sum(passage.kept for passage in passages) * width * rows
    return {
        "facts": len(facts),
        "positions": sum(passage.kept for passage in passages),
        "seconds": bodies(base, tuned, passages, dtype),
        "flop": flop,
        "rate": head_rate(rows, width, dtype),
    }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All runs on one set of facts."""

    def run(name: str, dtype: str = "") -> dict[str, Any]:
        given = [f"--{key}={getattr(options, key)}" for key in ("base", "tuned", "facts", "split", "limit", "seed")]
        command = [sys.executable, __file__, "drift", *given, f"--part={name}", f"--dtype={dtype}"]
        answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        return answer

    ours = run("ours")
    plain = run("plain", ours["number_type"]) if options.plain else None
    floor = run("floor", ours["number_type"])
    least = floor["seconds"] + floor["flop"] / floor["rate"]
    return {
        "facts": floor["facts"],
        "positions": floor["positions"],
        "number_type": ours["number_type"],
        "threads": torch.get_num_threads(),
        "drift_seconds": ours["seconds"],
        "plain_seconds": plain and plain["seconds"],
        "bodies_seconds": floor["seconds"],
        "head_gigaflops": floor["rate"] / 1e9,
        "least_seconds": least,
        "plain_over_drift": plain and plain["seconds"] / ours["seconds"],
        "drift_over_least": ours["seconds"] / least,
        "kl_drift": ours["kl"],
        "kl_plain": plain and plain["kl"],
    }


def wide_pair(folder: Path) -> tuple[Path, Path, Path]:
    """Two random models of a very wide vocabulary with their tokenizer, and a text in its words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({f"w{index}": index for index in range(WORDS)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="w0", eos_token="w1")
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    for name in ("base", "tuned"):
        torch.manual_seed(len(name))
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    words = torch.randint(2, WORDS, (6000,), generator=torch.Generator().manual_seed(0)).tolist()
    (folder / "text.txt").write_text(" ".join(f"w{word}" for word in words))
    return folder / "base", folder / "tuned", folder / "text.txt"


def memory(_: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        made = [sys.executable, __file__, "make-wide", place]
        base, tuned, text = json.loads(subprocess.run(made, check=True, capture_output=True, text=True).stdout)
        both = sum(Path(path, "model.safetensors").stat().st_size for path in (base, tuned))
        command = ["-m", "knowshift", "drift", base, tuned, "--text", text, "--out", f"{place}/out"]
        seconds, wide = timed(lambda: peak([sys.executable, *command]))
        started = peak([sys.executable, "-c", IMPORTS])
    return {
        "vocabulary": WORDS,
        "seconds": seconds,
        "both_models_gb": both / 1e9,
        "peak_gb": wide / 1e9,
        "beyond_both_gb": (wide - both) / 1e9,
        "libraries_alone_gb": started / 1e9,
    }


IMPORTS = "import knowshift.measure.token_drift, transformers.models.llama.modeling_llama"


def peak(command: list[str]) -> int:
    """The highest memory of a process, in bytes, with what it maps from files."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return usage.ru_maxrss * 1024


def make_wide(options: argparse.Namespace) -> list[str]:
    """`wide_pair` in a process of its own, so that its memory is not counted."""
    return [str(path) for path in wide_pair(Path(options.folder))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    speed = commands.add_parser("drift")
    speed.add_argument("--base", default="smollm2")
    speed.add_argument("--tuned", required=True)
    speed.add_argument("--facts", required=True)
    speed.add_argument("--split", default="test")
    speed.add_argument("--limit", type=int, default=2000)
    speed.add_argument("--seed", type=int, default=0)
    speed.add_argument("--no-plain", dest="plain", action="store_false", help="leave the plain loop out")
    speed.add_argument("--part", choices=("ours", "plain", "floor"), help="one run alone")
    speed.add_argument("--dtype", default="bfloat16", help="of one run alone")
    speed.set_defaults(run=lambda options: part(options) if options.part else compare(options))
    commands.add_parser("memory").set_defaults(run=memory)
    made = commands.add_parser("make-wide")
    made.add_argument("folder")
    made.set_defaults(run=make_wide)
    options = parser.parse_args()
    result = options.run(options)
    print(json.dumps(result, indent=2 if isinstance(result, dict) else None))


if __name__ == "__main__":
    main()
