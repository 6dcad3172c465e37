"""Verdicts where the truth is planted: found where it is there, and not found where nothing is."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from knowshift.report.words import Interval
from knowshift.study.claims import Claim, as_tables, judge
from knowshift.study.claims.rules import Part, correlation, of_seeds, together, weakest
from knowshift.study.crossed import Crossed
from knowshift.study.index import Missing
from plantedstudy import Planted, Truth

NAMES = (
    "size", "low-mastery", "middle", "kl-size", "kl-damage", "concentration", "ffn", "restoration",
    "restoration-interpolation", "restoration-lora", "first-layers",
)  # fmt: skip
LEVELS = {0: -0.25, 1: -0.1, 2: 0.1, 3: 0.0, 4: -0.1}


def paper(level: int, size: int, method: str) -> float:
    """Accuracy as the paper tells it: falling with size, lowest for level 0, best for level 2, LoRA below."""
    return LEVELS[level] * size / 960 - (0.08 if size > 240 else 0) - (0.1 if method == "lora" else 0)


def moved(level: int, size: int) -> float:
    """KL as the paper tells it: least at 240 facts, and larger where accuracy is lower."""
    return 0.5 + (0.05 if size < 240 else 0) - 0.8 * paper(level, size, "sft") * (size >= 240)


AS_TOLD = Truth(
    accuracy=paper,
    restored=lambda name: {"relative": 0.12, "0-3": -0.3}.get(name, 0.0),
    kl=moved,
    share=0.7,
    null=0.5,
    ffn=1.5,
)
OTHERWISE = Truth(
    accuracy=lambda level, size, method: -paper(level, size, method),
    restored=lambda name: {"relative": -0.12, "0-3": 0.3}.get(name, 0.0),
    kl=lambda level, size: 0.5 - 0.4 * paper(level, size, "sft") - (0.1 if size < 240 else 0),
    share=0.5,
    null=0.5,
    ffn=0.7,
)


def verdicts(truth: Truth, **settings: Any) -> dict[str, Claim]:
    """The claims of one planted study by name."""
    return {claim.name: claim for claim in judge(Planted(Path(), truth, **settings).in_memory())}


def test_what_is_planted_is_found() -> None:
    found = verdicts(AS_TOLD, facts=30)
    assert tuple(found) == NAMES
    assert {name: claim.verdict for name, claim in found.items()} == dict.fromkeys(NAMES, "supported")
    assert found["restoration"].deciding.effect is not None
    assert found["restoration"].deciding.effect.value == pytest.approx(0.12, abs=0.04)
    for claim in found.values():
        assert claim.text.startswith("Supported: ")
        assert claim.deciding.effect is not None


def test_the_contrary_is_not_supported() -> None:
    found = verdicts(OTHERWISE, facts=30)
    assert {name: claim.verdict for name, claim in found.items()} == dict.fromkeys(NAMES, "not supported")


def test_nothing_to_find_is_seldom_found() -> None:
    """At most one study in twenty may call a claim supported by chance; 30 studies allow for 5."""
    counts: Counter[str] = Counter()
    for draw in range(30):
        settings: dict[str, Any] = {"levels": (0, 2, 4), "facts": 6, "draw": draw}
        counts.update(
            name for name, claim in verdicts(Truth(between=0.05), **settings).items() if claim.verdict == "supported"
        )
    assert max(counts.values(), default=0) <= 5, counts
    assert sum(counts.values()) <= 0.05 * 30 * len(NAMES), counts


def test_one_seed_decides_nothing() -> None:
    found = verdicts(AS_TOLD, seeds=(0,), facts=10)
    for name, claim in found.items():
        if name != "kl-damage":  # models are what is counted there
            assert claim.verdict == "not resolved", name
            assert "one seed" in (claim.why or ""), name


def test_a_level_that_cannot_be_filled_is_said() -> None:
    study = Planted(Path(), AS_TOLD, levels=(1, 2, 4), sizes=(60, 240, 960), seeds=(0, 1), facts=6)
    why = "level 0 holds 3 facts"
    study.missing.append(Missing("train", {"role": "tuned", "model": "planted", "level": 0, "asked_size": "60"}, why))
    found = {claim.name: claim for claim in judge(study.in_memory())}
    for name in ("low-mastery", "middle"):
        assert found[name].verdict == "not resolved"
        assert why in found[name].text
        assert found[name].deciding.effect is None
    assert why in (found["size"].why or "")


def test_sizes_that_cannot_answer_are_said() -> None:
    found = verdicts(AS_TOLD, sizes=(60, 120), seeds=(0, 1), facts=4)
    assert found["size"].verdict == found["kl-size"].verdict == "not resolved"
    assert "no models of about 240" in found["size"].text


def test_tables_of_claims() -> None:
    claims = list(verdicts(AS_TOLD, seeds=(0, 1), facts=4).values())
    table, parts = as_tables(claims)
    assert table.frame["name"].to_list() == list(NAMES)
    assert set(table.frame["table"]) <= {
        "size",
        "accuracy",
        "drift",
        "drift_accuracy",
        "concentration",
        "modules",
        "confirmed",
        "parts",
    }
    assert parts.frame.height == sum(len(claim.parts) for claim in claims)


def part(low: float, high: float, margin: float = 0.0) -> Part:
    return Part("{}", Interval((low + high) / 2, low, high), margin=margin)


def test_rules() -> None:
    yes, no, open_ = part(0.1, 0.2), part(-0.2, -0.1), part(-0.1, 0.1)
    assert [one.verdict for one in (yes, no, open_)] == ["supported", "not supported", "not resolved"]
    assert part(0.1, 0.2, margin=0.15).verdict == "not resolved"
    assert part(0.1, 0.2, margin=0.3).verdict == "not supported"
    assert together([yes, yes]) == "supported"
    assert together([yes, open_]) == "not resolved"
    assert together([yes, open_, no]) == "not supported"
    assert weakest([yes, part(0.01, 0.2)]) == part(0.01, 0.2)
    assert weakest([yes, open_, no]) == no


def test_an_effect_is_turned() -> None:
    turned = of_seeds("{}", Crossed(-0.1, -0.3, -0.05, 0.1, 3), turned=True, why=None)
    assert turned.effect == Interval(0.1, 0.05, 0.3)
    assert turned.verdict == "supported"
    assert of_seeds("{}", None, why="gone").text == "gone"


def test_a_correlation_holds_its_rate() -> None:
    random = np.random.default_rng(0)
    wrong = sum(
        correlation("{}", random.normal(size=12), random.normal(size=12)).verdict == "supported" for _ in range(400)
    )
    assert wrong <= 20
    numbers = np.arange(12.0)
    assert correlation("{}", numbers, numbers**3).verdict == "supported"
    assert correlation("{}", numbers, -numbers).verdict == "not supported"
    assert correlation("{}", numbers, -numbers, turned=True).verdict == "supported"
    assert correlation("{}", numbers[:5], numbers[:5]).verdict == "not resolved"
