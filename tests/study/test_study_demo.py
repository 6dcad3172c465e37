"""The demo's whole chain on a tiny model: its files, its arithmetic, killed and resumed, repeated."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.files import read_json
from knowshift.study.demo import FRACTIONS, DemoOptions, run
from knowshift.study.headlines import headline_figures

SETTINGS: dict[str, Any] = {
    "templates": 3,
    "samples": 4,
    "temperature": 1.0,
    "mastery_new_tokens": 8,
    "answer_new_tokens": 4,
    "train_facts": 60,
    "validation_facts": 20,
    "test_facts": 30,
    "low_size": 24,
    "middle_size": 8,
    "learning_rate": 1e-2,
    "batch_size": 4,
}
FLAGS = [part for name, value in SETTINGS.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def facts_file(path: Path) -> Path:
    """Facts that a random model hits seldom, now and then, or often: some letters, or any of many."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    hard = ["zq", "xj", "qk"]
    rows = []
    for split, domain, count in (
        ("train", "id", 90),
        ("validation", "id", 20),
        ("validation", "ood", 20),
        ("test", "id", 30),
        ("test", "ood", 30),
    ):
        for index in range(count):
            answers = [hard[index % 3]] if index % 2 else list(letters[index % 20 : index % 20 + 1 + index % 5])
            rows.append(
                {
                    "id": f"{split}-{domain}-{index}",
                    "question": f"Say number {index} of {split} {domain}?",
                    "answers": answers,
                    "topic": f"topic{index % 4}",
                    "split": split,
                    "domain": domain,
                }
            )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def inputs(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return base_folder, facts_file(tmp_path_factory.mktemp("facts") / "facts.jsonl")


def options(inputs: tuple[Path, Path], **changed: Any) -> DemoOptions:
    return DemoOptions(model=str(inputs[0]), facts=str(inputs[1]), **{**SETTINGS, **changed})


@pytest.fixture(scope="module")
def finished(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "run"
    assert run(out, options(inputs)) == out / "report.html"
    return out


def test_everything_promised_is_there(finished: Path) -> None:
    expected = ["run.json", "metrics.json", "facts.jsonl", "report.html", "mastery/mastery.parquet"]
    expected += [f"sets/{name}.jsonl" for name in ("low", "middle")]
    expected += [f"models/{name}/model.safetensors" for name in ("low", "middle")]
    for model in ("base", "base-few-shot", "low", "middle", "restored", "interpolated"):
        expected += [f"eval/{model}/answers.parquet", f"eval/{model}/metrics.json"]
    expected += [f"transitions/{name}.parquet" for name in ("low", "middle", "restored")]
    for name in ("low", "middle"):
        expected += [
            f"drift/{name}/drift.parquet",
            f"diff/{name}/concentration.parquet",
            f"diff/{name}/modules.parquet",
        ]
    expected += ["sweep/answers.parquet", "sweep/curve.parquet", "sweep/choice.json"]
    assert [path for path in expected if not (finished / path).is_file()] == []
    charts = {path.suffix for path in (finished / "charts").iterdir()}
    assert charts == {".png", ".svg"}


def test_headline_figures_recomputed_from_the_parquet_files(finished: Path) -> None:
    """By other means than the code that wrote them: plain sums over the tables."""
    metrics = read_json(finished / "metrics.json")
    answers = {path.name: pl.read_parquet(path / "answers.parquet") for path in (finished / "eval").iterdir()}
    for name, table in answers.items():
        shares = []
        for domain in ("id", "ood"):
            rows = table.filter(domain=domain).to_dicts()
            share = sum(row["contains"] for row in rows) / len(rows)
            assert metrics["accuracy"][name][domain]["value"] == pytest.approx(share)
            shares.append(share)
            by_level: dict[int, list[bool]] = {}
            for row in rows:
                by_level.setdefault(row["level"], []).append(row["contains"])
            mean = sum(sum(hits) / len(hits) for hits in by_level.values()) / len(by_level)
            assert metrics["accuracy_over_levels"][name][domain]["value"] == pytest.approx(mean)
        assert metrics["accuracy"][name]["both"]["value"] == pytest.approx(sum(shares) / 2)
    before = {row["id"]: row["contains"] for row in answers["base-few-shot"].to_dicts()}
    for name in ("low", "middle", "restored"):
        for domain in ("id", "ood"):
            rows = answers[name].filter(domain=domain).to_dicts()
            lost = sum(before[row["id"]] and not row["contains"] for row in rows)
            gained = sum(row["contains"] and not before[row["id"]] for row in rows)
            counted = metrics["transitions"][name][domain]
            assert (counted["lost"], counted["gained"]) == (lost, gained)
            assert sum(counted[change] for change in ("kept", "lost", "gained", "never")) == len(rows)
    scored = pl.read_parquet(finished / "mastery" / "mastery.parquet")
    for domain in ("id", "ood"):
        for level in range(5):
            assert metrics["levels"][domain][str(level)] == scored.filter(domain=domain, level=level).height
    for name in ("low", "middle"):
        drift = pl.read_parquet(finished / "drift" / name / "drift.parquet")
        assert metrics["drift"][name]["kl_tuned_base"] == pytest.approx(drift["kl_tuned_base"].mean())
        curve = pl.read_parquet(finished / "diff" / name / "concentration.parquet").to_dicts()
        (top,) = [row for row in curve if row["fraction"] == 0.01]
        assert metrics["concentration"][name]["top_1_percent_share"] == top["share"]
        assert metrics["concentration"][name]["null"] == top["null_share"]
    difference = metrics["restoration"]["test_difference"]
    shift = metrics["accuracy"]["restored"]["both"]["value"] - metrics["accuracy"]["low"]["both"]["value"]
    assert difference["value"] == pytest.approx(shift)
    assert difference["low"] <= difference["value"] <= difference["high"]


def test_the_choice_is_made_on_validation_and_test_is_another_set(finished: Path) -> None:
    curve = pl.read_parquet(finished / "sweep" / "curve.parquet")
    own = curve.filter((pl.col("method") == "relative") & (pl.col("fraction") > 0)).to_dicts()
    assert [row["fraction"] for row in own] == list(FRACTIONS)
    best = max(own, key=lambda row: (row["accuracy"], -row["fraction"]))
    assert read_json(finished / "sweep" / "choice.json")["fraction"] == best["fraction"]
    chosen_on = set(pl.read_parquet(finished / "sweep" / "answers.parquet")["id"])
    confirmed_on = set(pl.read_parquet(finished / "eval" / "restored" / "answers.parquet")["id"])
    trained_on = {json.loads(line)["id"] for line in (finished / "sets" / "low.jsonl").read_text().splitlines()}
    assert not chosen_on & confirmed_on
    assert not trained_on & (chosen_on | confirmed_on)


def test_sets_hold_what_they_are_called(finished: Path) -> None:
    levels = dict(pl.read_parquet(finished / "mastery" / "mastery.parquet").select("id", "level").iter_rows())
    for name, level in (("low", 0), ("middle", 2)):
        lines = [json.loads(line) for line in (finished / "sets" / f"{name}.jsonl").read_text().splitlines()]
        assert {levels[line["id"]] for line in lines} == {line["level"] for line in lines} == {level}


def test_killed_three_times_it_ends_with_the_same_figures(
    inputs: tuple[Path, Path], finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "knowshift", "demo", "--out", str(out), "--model", str(inputs[0])]
    command += ["--facts", str(inputs[1]), *FLAGS]
    draw, kills = random.Random(1), 0
    while True:
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
        if kills < 3:
            stages = len(list((out / "stages").glob("*.json"))) if out.exists() else 0
            wanted = min(stages + 1 + draw.randrange(3), 9)
            while process.poll() is None and len(list((out / "stages").glob("*.json"))) < wanted:
                time.sleep(0.02)
            time.sleep(draw.random() * 0.5)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
        _, errors = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors
    assert kills >= 1
    assert read_json(out / "metrics.json") == read_json(finished / "metrics.json")


def test_a_finished_run_is_not_run_again_and_another_seed_is(
    inputs: tuple[Path, Path], finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    run(out, options(inputs))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before
    run(out, options(inputs, seed=1))
    first, second = read_json(finished / "metrics.json"), read_json(out / "metrics.json")
    assert second["settings"]["seed"] == 1
    assert first["levels"] != second["levels"]


def test_figures_come_from_the_files(finished: Path, tmp_path: Path) -> None:
    """Change a table, and the figures follow."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    path = out / "eval" / "low" / "answers.parquet"
    pl.read_parquet(path).with_columns(contains=pl.lit(True)).write_parquet(path)
    changed = headline_figures(out, read_json(finished / "metrics.json")["settings"])
    assert changed["accuracy"]["low"]["both"]["value"] == 1.0


def test_lora_is_one_flag_away(inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    command = ["demo", "--out", str(out), "--model", str(inputs[0]), "--facts", str(inputs[1]), *FLAGS]
    assert main([*command, "--method", "lora"]) == 0
    assert (out / "models" / "low" / "adapter_config.json").is_file()
    assert read_json(out / "metrics.json")["models"]["low"]["method"] == "lora"
    assert read_json(out / "diff" / "low" / "metrics.json")["changed"] > 0


def test_facts_that_do_not_suit_are_named(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    lines = [line for line in inputs[1].read_text().splitlines() if '"validation"' not in line]
    (tmp_path / "facts.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="split 'validation' in domain 'id'"):
        run(tmp_path / "a", options((inputs[0], tmp_path / "facts.jsonl")))
    with pytest.raises(InputError, match="level 0 holds 32"):
        run(tmp_path / "b", options(inputs, batch_size=60, low_size=60))


def test_help_states_the_defaults_in_force() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "knowshift", "demo", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "200"},
    ).stdout
    for name in SETTINGS:
        line = next(line for line in shown.splitlines() if f"--{name.replace('_', '-')} " in line)
        assert f"(default {DemoOptions.model_fields[name].default:g}" in line
