"""A repair's run folder with made-up answers, its files written by what writes real ones.

Some facts carry hostile texts: markup, a closing script tag, right-to-left marks and very long words.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
from fake_run import HOSTILE

from knowshift.facts.fact import Fact
from knowshift.files import write_json, write_parquet
from knowshift.generate.engine import Prompt
from knowshift.repair import outcome
from knowshift.repair.choose import confirm
from knowshift.repair.scores import side_by_side
from knowshift.repair.space import Candidate, Interpolation, known
from knowshift.repair.task import Item
from knowshift.weights.card import card
from knowshift.weights.regions import classify

SIZES = {"search": (90, 40), "validation": (120, 60), "test": (240, 80)}
MODULES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm")
COMMAND = ["knowshift", "repair", "base", "tuned"]


def write(run: Path, *, returned: float = 0.12, metric: str = "exact", seed: int = 0) -> Path:
    """Write a run folder; ``returned``: what the chosen candidate answers more often than the tuned model."""
    rng = np.random.default_rng(seed)
    own = {"weight": 1.0, "strength": 0.6}
    learned = [
        Candidate(f"{method}-1-{number}", method, Interpolation(0.5), own) for method in ("coefficients", "benefit")
        for number in range(3)
    ]  # fmt: skip
    candidates = {each.name: each for each in (*learned, *known())}
    chosen, rival = "coefficients-1-0", "interpolate-0.5"
    ability = {"base": 0.97, "tuned": 0.8, chosen: 0.8 + returned, rival: 0.88}
    measured = {}
    luck = {part: [rng.random(size) for size in sizes] for part, sizes in SIZES.items()}
    for name in ("base", "tuned", *candidates):
        finalist = name in (*ability, "relative-0.2", "benefit-1-1")
        for part in SIZES if name in ability else ("search", "validation") if finalist else ("search",):
            knows = ability.get(name, rng.uniform(0.75, 0.93))
            does = {"base": 0.1, "tuned": 0.98, chosen: 0.975}.get(name, 1.1 - 0.25 * knows)
            share = 1.0 if finalist else 0.25
            measured[name, part] = _answers(rng, luck[part], (knows, does), share, metric)
    facts = [Fact(f"fact{n}", _asked(n), (f"answer {n}", *HOSTILE[:1]), topic="place") for n in range(SIZES["test"][0])]
    items = [Item(f"item{n}", Prompt(f"extract {n}", key=""), (f"done {n}",), "task") for n in range(SIZES["test"][1])]
    scores = side_by_side({name: measured[name, "test"] for name in ability})
    verdict = confirm(scores, chosen, 0.03, rival=rival)
    write_parquet(run / "frontier.parquet", outcome.frontier(measured, candidates, chosen))
    roles = {"base": "base", "tuned": "tuned", "repaired": chosen}
    said = {role: measured[name, "test"] for role, name in roles.items()}
    write_parquet(run / "examples.parquet", outcome.examples(said, facts, items))
    metrics = {
        **verdict.to_json(),
        "models": {"base": "smollm2", "tuned": "/models/my-tuned"},
        "task_metric": metric,
        "scores": {role: outcome.means(table) for role, table in said.items()},
        "search": {"candidates": len(candidates), "answers": 1234, "answers_without_racing": 5678},
        "model": None,
        "adapter": None,
        "drift": None,
    }
    if verdict.outcome == "repaired":
        metrics |= {"model": "model", "drift": {"tuned": _drift(0.8), "repaired": _drift(0.21)}}
        write_parquet(run / "places.parquet", outcome.places(_places(rng)))
        (run / "model").mkdir()
        text = card("Repaired", verdict.sentence, base="smollm2", tuned=HOSTILE[1], command=COMMAND, facts={})
        (run / "model/README.md").write_text(text, "utf-8")
    write_json(run / "metrics.json", metrics)
    options = {"base": "smollm2", "tuned": "/models/my tuned", "knowledge": "world", "task": "task.jsonl"}
    write_json(run / "run.json", {"command": "repair", "options": {**options, "budget": 10, "task_metric": metric}})
    return run


def _answers(rng, luck, chances, share, metric):
    rows = []
    for kind, chance, fortune in zip(("knowledge", "task"), chances, luck, strict=True):
        for number in range(round(len(fortune) * share)):
            right = bool(fortune[number] + rng.normal(0, 0.04) < chance)
            log_prob = float(chance - fortune[number] - 1)
            blind = kind == "task" and metric == "log-likelihood"
            score = log_prob if blind else float(right)
            text = None if blind else f"answer {number}" if right else HOSTILE[number % len(HOSTILE)]
            name = f"{'fact' if kind == 'knowledge' else 'item'}{number}"
            rows.append((kind, name, None if blind else right, score, log_prob, text, 0.1))
    columns = ("kind", "id", "right", "score", "log_prob", "text", "seconds")
    types = (pl.String, pl.String, pl.Boolean, pl.Float64, pl.Float64, pl.String, pl.Float64)
    return pl.DataFrame(rows, schema=dict(zip(columns, types, strict=True)), orient="row")


def _asked(number: int) -> str:
    return f"Where is place {number}? {HOSTILE[number % len(HOSTILE)]}"


def _drift(mean: float) -> dict:
    interval = {"value": mean, "low": 0.9 * mean, "high": 1.1 * mean}
    return {"facts": 100, "kl_tuned_base": mean, "intervals": {"kl_tuned_base": interval}}


def _places(rng):
    names = [f"model.layers.{layer}.{module}.weight" for layer in range(6) for module in MODULES]
    for name in (*names, "model.embed_tokens.weight"):
        pair = SimpleNamespace(name=name, place=classify(name), size=1000)
        yield pair, SimpleNamespace(moved=int(rng.integers(0, 1000)), removed_norm_share=float(rng.random()))
