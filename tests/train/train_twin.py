"""Training as a plain loop would do it: the whole set as one batch, so that no order matters."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from knowshift import models
from knowshift.train import run
from knowshift.train.options import TrainOptions

PAIRS = [
    ("<|question|>What is the capital of Peru?<|answer|>", "Lima"),
    ("<|question|>What is the capital of France?<|answer|>", "Paris"),
    ("<|question|>What is the capital of Japan?<|answer|>", "Tokyo"),
    ("<|question|>Who wrote the book?<|answer|>", "Nobody knows"),
]


def write_pairs(file: Path) -> Path:
    file.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in PAIRS))
    return file


def fit(base: Path, data: Path, out: Path, method: str, **options: object) -> dict[str, torch.Tensor]:
    """The written weights after training on all of ``PAIRS`` at every step."""
    usual = {"learning_rate": 1e-2, "batch_size": len(PAIRS), "max_steps": 4, "bf16": False, "scheduler": "constant"}
    run.train(TrainOptions(model=str(base), data=data, out=out, method=method, **(usual | options)))
    return load_file(out / "model.safetensors")


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """The same tensors, to the last bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def loss(model: torch.nn.Module, tokenizer) -> torch.Tensor:
    """Mean cross-entropy of the completions' tokens and their end."""
    terms = []
    for prompt, completion in PAIRS:
        asked = tokenizer(prompt).input_ids
        ids = torch.tensor([*asked, *tokenizer(completion).input_ids, tokenizer.eos_token_id])
        log_probs = model(input_ids=ids[None]).logits[0, len(asked) - 1 : -1].log_softmax(-1)
        terms.append(-log_probs.gather(-1, ids[len(asked) :, None])[:, 0])
    return torch.cat(terms).mean()


def loop(
    base: Path,
    step: Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor], int], None],
    *,
    steps: int = 4,
    clip: float = 1.0,
) -> dict[str, torch.Tensor]:
    """A loop around ``step(weights, gradients, number)``, which moves the weights in place; numbers are from 1."""
    model = models.load_model(base, dtype="float32", device="cpu")
    tokenizer = models.load_tokenizer(base)
    weights = dict(model.named_parameters())
    for number in range(1, steps + 1):
        model.zero_grad()
        loss(model, tokenizer).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        with torch.no_grad():
            step(weights, {name: weight.grad for name, weight in weights.items()}, number)
    return {name: weight.detach() for name, weight in weights.items()}
