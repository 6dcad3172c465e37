"""A tiny model that really knows facts after solved examples, and others made of it: with a task learned, with harm."""

import json
import random

import torch

import tiny
from knowshift.facts.fact import Fact
from knowshift.measure.forms import continuation
from knowshift.models import load_model, load_tokenizer

WORDS = ("Paris", "Tokyo", "Lima", "Peru", "France", "Japan", "river", "book", "city", "coast", "capital", "sea")
FACTS = [
    Fact(f"f{number}", f"lake {number}", (WORDS[(7 * number + number // 5) % 12],), topic=f"t{number % 3}")
    for number in range(110)
]
# The last digit tells: easily learned, so that the fixtures are quick.
ITEMS = [(f"turn {number}:", f" {WORDS[number % 10]}") for number in range(90)]
SHOTS = 5


def write(folder):
    """The facts and the task as files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": each.id, "question": each.question, "answers": list(each.answers)} for each in FACTS]
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [json.dumps({"prompt": prompt, "completion": completion}) + "\n" for prompt, completion in ITEMS]
    (folder / "task.jsonl").write_text("".join(lines))
    return folder / "facts.jsonl", folder / "task.jsonl"


class Texts:
    """Batches of token ids with labels: facts in rows of solved examples, or items of the task."""

    def __init__(self, tokenizer, seed=0):
        self.tokenizer, self.random = tokenizer, random.Random(seed)

    def facts(self, rows=16):
        texts = []
        for _ in range(rows):
            parts = []
            for fact in self.random.sample(FACTS, SHOTS + 1):
                parts += [(f"Question: {fact.question}\nAnswer:", False)]
                parts += [(continuation(fact.answers[0], "few-shot") + "\n", True), ("\n", False)]
            texts.append(parts)
        return self._batch(texts)

    def items(self, rows=90):
        end = self.tokenizer.eos_token
        chosen = self.random.sample(ITEMS, rows)
        return self._batch([[(prompt, False), (completion + end, True)] for prompt, completion in chosen])

    def _batch(self, texts):
        rows = []
        for parts in texts:
            ids, labels = [], []
            for text, learned in parts:
                own = self.tokenizer(text, add_special_tokens=False).input_ids
                ids += own
                labels += own if learned else [-100] * len(own)
            rows.append((ids, labels))
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([own + [0] * (width - len(own)) for own, _ in rows])
        return ids, torch.tensor([own + [-100] * (width - len(own)) for _, own in rows])


def loss(model, batch):
    ids, labels = batch
    return model(input_ids=ids, labels=labels).loss


def train(model, texts, steps, *, facts, items, rate=3e-3):
    """Adam on facts, items or both; the last loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 20) * (1 - step / steps)
        total = sum(([loss(model, texts.facts())] if facts else []) + ([loss(model, texts.items())] if items else []))
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(total.detach())


def base(folder, steps=400):
    """Knows the facts."""
    model = tiny.model("llama", hidden=64)
    texts = Texts(tiny.tokenizer())
    found = train(model, texts, steps, facts=True, items=False)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder, found


def kept(base_folder, folder, steps=250):
    """Has learned the task and still knows the facts."""
    model = load_model(base_folder, dtype="float32").train()
    found = train(model, Texts(load_tokenizer(base_folder), 1), steps, facts=True, items=True)
    model.save_pretrained(folder)
    load_tokenizer(base_folder).save_pretrained(folder)
    return folder, found


def harmed(kept_folder, folder, share=0.01, size=0.25, seed=0):
    """``kept`` with harm in a random ``share`` of the weights: each is moved by ``size``, the way facts suffer from.

    Returns the folder and the harmed places by name.
    """
    model = load_model(kept_folder, dtype="float32").train()
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    loss(model, Texts(load_tokenizer(kept_folder), 2).facts(64)).backward()
    with torch.no_grad():
        for name, value in model.named_parameters():
            masks[name] = torch.rand(value.shape, generator=generator) < share
            value.add_(masks[name] * value.grad.sign() * size)
    model.save_pretrained(folder)
    load_tokenizer(kept_folder).save_pretrained(folder)
    return folder, masks
