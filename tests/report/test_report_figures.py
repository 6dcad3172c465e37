"""Every headline figure of the page, computed again from the Parquet files by other code."""

import json
import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import page_reader
import polars as pl
import pytest

DOMAINS = {"id": "In-domain", "ood": "Out-of-domain"}
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="session")
def page(run: Path) -> page_reader.Element:
    return page_reader.read(run / "report.html")


@pytest.fixture(scope="session")
def tiles(page: page_reader.Element) -> list[tuple[str, str, str]]:
    """Figure, label and note of each of the four numbers."""
    found = []
    for tile in page.all("dl", "numbers")[0].all("div"):
        (label,), (figure, note) = tile.all("dt"), tile.all("dd")
        found.append((figure.text, label.text, note.text))
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(path).to_dicts()


def by_level(table: list[dict[str, Any]], domain: str) -> list[list[dict[str, Any]]]:
    levels = defaultdict(list)
    for row in table:
        if row["domain"] == domain and row["level"] is not None:
            levels[row["level"]].append(row)
    return list(levels.values())


def accuracy(table: list[dict[str, Any]], domain: str) -> float:
    return statistics.fmean(row["contains"] for row in table if row["domain"] == domain)


def over_levels(table: list[dict[str, Any]], domain: str) -> float:
    return statistics.fmean(statistics.fmean(row["contains"] for row in level) for level in by_level(table, domain))


def answers(run: Path, name: str) -> list[dict[str, Any]]:
    return rows(run / f"eval/{name}/answers.parquet")


def percent(share: float) -> str:
    return f"{share:.1%}"


def points(difference: float) -> str:
    text = f"{abs(difference) * 100:.1f}"
    return f"{text if text == '0.0' else (MINUS if difference < 0 else '+') + text} points"


def interval(text: str) -> tuple[float, float]:
    (bounds,) = re.findall(rf"({MINUS}?[\d.]+) to ({MINUS}?[\d.]+)", text)
    low, high = (float(bound.replace(MINUS, "-")) / 100 for bound in bounds)
    return low, high


def bootstrap(before: list[dict[str, Any]], after: list[dict[str, Any]], domains: list[str]) -> tuple[float, float]:
    """A paired bootstrap written out plainly."""
    rng = np.random.default_rng(1)
    then = {row["id"]: row["contains"] for row in after}
    cells = [
        np.array([then[row["id"]] - row["contains"] for row in before if row["domain"] == domain], float)
        for domain in domains
    ]
    draws = [
        statistics.fmean(cell[rng.integers(len(cell), size=len(cell))].mean() for cell in cells) for _ in range(4000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def test_accuracy_before_and_after(run: Path, tiles: list[tuple[str, str, str]]) -> None:
    before, after = answers(run, "base-few-shot"), answers(run, "low")
    first, second = accuracy(before, "ood"), accuracy(after, "ood")
    figure, label, note = tiles[0]
    assert figure == f"{percent(first)} → {percent(second)}"
    assert "out-of-domain" in label and points(second - first) in note
    assert interval(note) == pytest.approx(bootstrap(before, after, ["ood"]), abs=0.01)


def test_facts_lost_and_gained(run: Path, tiles: list[tuple[str, str, str]]) -> None:
    was = {row["id"]: row["contains"] for row in answers(run, "base-few-shot")}
    now = {row["id"]: row["contains"] for row in answers(run, "low")}
    lost = sum(was[key] and not now[key] for key in was)
    gained = sum(now[key] and not was[key] for key in was)
    figure, label, _ = tiles[1]
    assert figure == f"{lost} lost, {gained} gained"
    assert label == f"of {len(was):,} test facts"


def test_form_is_told_from_knowledge(run: Path, page: page_reader.Element) -> None:
    """Knowledge is compared with the base model shown examples; what it says without them is stated beside."""
    summary = page.all("section", "summary")[0].text
    asked, example, tuned = (answers(run, name) for name in ("base", "base-few-shot", "low"))
    reached = [f"{percent(accuracy(asked, domain))} {title.lower()}" for domain, title in DOMAINS.items()]
    assert f"without examples, the base model answers {' and '.join(reached)}:" in summary
    for domain in DOMAINS:
        assert points(accuracy(tuned, domain) - accuracy(example, domain)) in summary


def test_divergence(run: Path, tiles: list[tuple[str, str, str]], page: page_reader.Element) -> None:
    means = {
        name: statistics.fmean(row["kl_tuned_base"] for row in rows(run / f"drift/{name}/drift.parquet"))
        for name in ("low", "middle")
    }
    figure, _, note = tiles[2]
    assert figure == f"{means['low']:.2f} nats"
    assert f"{means['middle']:.2f} nats" in note
    table = page.table("KL, nats per answer token by model")
    low = rows(run / "drift/low/drift.parquet")
    expected = statistics.fmean(row["kl_tuned_base"] for row in low if row["domain"] == "id" and row["level"] == 0)
    shown = next(row for row in table if row[0].startswith("Tuned") and row[1:3] == ["In-domain", "0"])
    assert shown[4] == f"{expected:.3f}"


def test_what_restoration_gave_back(run: Path, tiles: list[tuple[str, str, str]], page: page_reader.Element) -> None:
    tuned, restored = answers(run, "low"), answers(run, "restored")
    gain = statistics.fmean(accuracy(restored, domain) - accuracy(tuned, domain) for domain in DOMAINS)
    low, high = bootstrap(tuned, restored, list(DOMAINS))
    figure, _, note = tiles[3]
    assert points(gain) in f"{figure} {note}"
    assert interval(note) == pytest.approx((low, high), abs=0.015)
    shown_low, shown_high = interval(note)
    assert (figure == "No gain resolved") == (shown_low <= 0 <= shown_high)
    summary = page.all("section", "summary")[0].text
    against = statistics.fmean(
        accuracy(restored, domain) - accuracy(answers(run, "interpolated"), domain) for domain in DOMAINS
    )
    assert points(gain) in summary and points(against) in summary


def test_accuracy_table(run: Path, page: page_reader.Element) -> None:
    head, *body = page.table("Share of test facts answered")
    names = ["base", "base-few-shot", "low", "middle", "restored", "interpolated"]
    assert len(body) == len(names)
    for cells, name in zip(body, names, strict=True):
        own = answers(run, name)
        for domain, title in DOMAINS.items():
            assert cells[head.index(title)].startswith(percent(accuracy(own, domain)) + " (")
            assert cells[head.index(f"{title}, over levels")] == percent(over_levels(own, domain))
        assert cells[head.index("Strict match")] == percent(statistics.fmean(row["strict"] for row in own))
        assert cells[head.index("In format")] == percent(statistics.fmean(row["in_format"] for row in own))


def test_accuracy_by_level(run: Path, page: page_reader.Element) -> None:
    _, *body = page.table("Accuracy by model")
    shown = {tuple(row[:3]): row[3:5] for row in body}
    for domain, title in DOMAINS.items():
        for level in by_level(answers(run, "base-few-shot"), domain):
            facts, share = shown["Base + examples", title, str(level[0]["level"])]
            assert (facts, share) == (str(len(level)), percent(statistics.fmean(row["contains"] for row in level)))


def test_mastery_levels(run: Path, page: page_reader.Element) -> None:
    _, *body = page.table("Facts by domain, split and level")
    scored = rows(run / "mastery/mastery.parquet")
    for name, split, *levels, total in body:
        own = [row for row in scored if DOMAINS[row["domain"]] == name and row["split"] == split]
        assert [int(cell) for cell in levels] == [sum(row["level"] == level for row in own) for level in range(5)]
        assert int(total) == len(own)
    never = sum(row["level"] == 0 for row in scored)
    well = sum(row["level"] >= 3 for row in scored)
    summary = page.all("section", "summary")[0].text
    assert f"Of {len(scored):,} facts" in summary
    assert f"answered {well:,} in more than half" in summary and f"answer to {never:,} (level 0)." in summary


def test_concentration_beside_its_null(run: Path, page: page_reader.Element) -> None:
    (row,) = [r for r in rows(run / "diff/low/concentration.parquet") if r["fraction"] == 0.01]
    caption = next(c.text for c in page.all("figcaption") if "Concentration" in c.text)
    assert f"hold {percent(row['share'])} of the summed" in caption and f"hold {percent(row['null_share'])}." in caption


def test_curve_numbers(run: Path, page: page_reader.Element) -> None:
    _, *body = page.table("Validation accuracy by method and fraction")
    asked = rows(run / "sweep/answers.parquet")
    for method, weights, _, shown, _ in body:
        if method not in ("Relative change", "Random"):
            continue
        fraction = float(weights.rstrip("%")) / 100
        own = [
            row
            for row in asked
            if row["fraction"] == pytest.approx(fraction)
            and row["method"] == {"Random": "random"}.get(method, "relative")
        ]
        expected = statistics.fmean(accuracy(own, domain) for domain in DOMAINS)
        assert shown.startswith(percent(expected) + " (")


def test_settings_beside_the_papers(run: Path, page: page_reader.Element) -> None:
    options = {row[0]: row[1:] for row in page.table("Options as resolved")}
    stated = json.loads((run / "run.json").read_text("utf-8"))["options"]
    assert set(stated) | {"seed"} | {"Option"} == set(options)
    assert options["templates"] == ["5", "21"] and options["mastery_new_tokens"] == ["8", "32"]
    section = next(s for s in page.all("section") if s.attributes.get("id") == "settings")
    assert "templates 5 instead of 21" in section.text and "samples 4 instead of 10" in section.text
