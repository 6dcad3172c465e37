"""A tiny model that was taught a few facts, so that there is something to lose."""

from pathlib import Path

import torch

import tiny
from knowshift.facts.fact import Fact
from knowshift.train.knowledge.panel import questions

PLACES = ("Peru", "France", "Japan", "Chile", "Kenya", "Nepal", "Spain", "Ghana", "Egypt", "Italy", "Cuba", "Iran")
CITIES = ("Lima", "Paris", "Tokyo", "Santiago", "Nairobi", "Kathmandu", "Madrid", "Accra", "Cairo", "Rome", "Havana")
# The last is never taught.
FACTS = [
    Fact(f"c{number}", f"What is the capital of {place}?", (city,), topic="capital", split="validation")
    for number, (place, city) in enumerate(zip(PLACES, (*CITIES, "Tehran"), strict=True))
]


def taught(folder: Path, architecture: str = "llama", *, form: str = "plain", steps: int = 60) -> Path:
    """Write a float32 checkpoint that answers most of ``FACTS`` when they are asked in ``form``, the last never."""
    model, tokenizer = tiny.model(architecture), tiny.tokenizer()
    names, passages = questions(tokenizer, FACTS, form=form, most=99, seed=0)
    passages = [passage for name, passage in zip(names, passages, strict=True) if name != FACTS[-1].question]
    width = max(len(passage.ids) for passage in passages)
    ids = torch.zeros(len(passages), width, dtype=torch.long)
    labels = torch.full((len(passages), width), -100)
    for row, passage in enumerate(passages):
        ids[row, : len(passage.ids)] = torch.tensor(passage.ids)
        labels[row, len(passage.ids) - passage.kept : len(passage.ids)] = torch.tensor(passage.targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        logits = model(input_ids=ids).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
