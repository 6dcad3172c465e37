"""A whole small study on a tiny model, in real worker processes: its files, done once, the same after damage."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from commands import run
from knowshift.study.run import status

KINDS = {"mastery", "select", "train", "eval", "drift", "diff", "sweep", "confirm"}


def facts_file(path: Path) -> Path:
    """Facts that a random model hits seldom, or now and then: some letters, or any of many."""
    letters = "abcdefghijklmnopqrst"
    rows = [
        {
            "question": f"Say number {index} of {split} {domain}?",
            "answers": ["zq"] if index % 2 else list(letters[index % 15 : index % 15 + 1 + index % 5]),
            "topic": f"topic{index % 4}",
            "split": split,
            "domain": domain,
        }
        for split, domain, count in (
            ("train", "id", 40),
            *((split, domain, 6) for split in ("validation", "test") for domain in ("id", "ood")),
        )
        for index in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def plan(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    values = {
        "models": [str(base_folder)],
        "facts": str(facts_file(folder / "facts.jsonl")),
        "mastery": {"templates": 2, "samples": 2, "temperature": 1.0, "max_new_tokens": 6, "slick": False},
        "levels": [0],
        "sizes": [8],
        "seeds": [0],
        "train": {"learning_rate": 0.01, "batch_size": 4},
        "eval": {"max_new_tokens": 4, "base_forms": ["trained"]},
        "diff": {"fractions": [0.01, 0.2]},
        "sweep": {"fractions": [0.05], "rivals": ["dare"], "layers": 1},
    }
    path = folder / "plan.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path


@pytest.fixture(scope="module")
def finished(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    assert run("study", plan, "--out", out, "--workers", 1, "--markdown") == 0
    return out


def tables(out: Path) -> dict[str, bytes]:
    """The exported tables, by name."""
    return {path.name: path.read_bytes() for path in (out / "tables").glob("*.csv")}


def test_every_kind_is_done_and_models_are_gone(finished: Path) -> None:
    table = status(finished)
    assert table["state"].unique().to_list() == ["done"]
    assert set(table["kind"]) == KINDS
    assert not list(finished.glob("cells/*/*/model"))
    assert (finished / "run.json").is_file()
    listed = {entry["name"] for entry in json.loads((finished / "tables" / "tables.json").read_text())}
    assert {"accuracy", "restoration", "concentration", "drift", "claims"} <= listed
    assert {f"{name}.csv" for name in listed} == set(tables(finished))
    markdown = (finished / "tables" / "accuracy.md").read_text()
    assert markdown.startswith("### ") and "| tuned |" in markdown


def test_only_what_validation_chose_is_asked_on_test(finished: Path) -> None:
    (sweep,) = finished.glob("cells/sweep/*/answers.parquet")
    (confirm,) = finished.glob("cells/confirm/*/answers.parquet")
    asked = {json.loads(line)["id"]: json.loads(line)["split"] for line in facts_of(finished)}
    assert {asked[fact] for fact in pl.read_parquet(sweep)["id"]} == {"validation"}
    answers = pl.read_parquet(confirm)
    assert {asked[fact] for fact in answers["id"]} == {"test"}
    rows = answers.select("method", "fraction").unique().rows()
    controls = {(name, 0.05) for name in ("relative", "interpolate", "random", "base-magnitude", "absolute")}
    assert set(rows) == {("relative", 0.0), ("dare", None), *controls}


def facts_of(out: Path) -> list[str]:
    return [line for file in (out / "facts").iterdir() for line in file.read_text("utf-8").splitlines()]


def test_a_dry_run_times_pieces_of_what_is_to_be_done_and_writes_nothing(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("study", plan, "--out", tmp_path / "none", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "13 cells, 0 done" in said
    assert said.count("    knowshift ") == 11  # and two that are done in memory
    for kind in KINDS:
        assert re.search(rf"^{kind} +\d+ cells +\S+ (s|min|h)$", said, re.MULTILINE)
    assert re.search(r"^time: [1-9]\S* (s|min|h) one after another", said, re.MULTILINE)
    assert not (tmp_path / "none").exists()


def test_a_dry_run_reckons_from_what_is_done(
    plan: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knowshift.study.estimate.calibrate", lambda *_: pytest.fail("nothing is left to be timed"))
    assert run("study", plan, "--out", finished, "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "13 cells, 13 done, 0 that there cannot be"
    more = tmp_path / "more.yaml"
    more.write_text(json.dumps({**json.loads(plan.read_text()), "seeds": [0, 1]}))
    assert run("study", more, "--out", finished, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "21 cells, 13 done" in said
    assert re.search(r"^train +1 cells", said, re.MULTILINE) and not re.search(r"^mastery +\d", said, re.MULTILINE)


def test_a_damaged_table_is_made_again_and_says_the_same(plan: Path, finished: Path) -> None:
    (confirm,) = finished.glob("cells/confirm/*/answers.parquet")
    before, made = pl.read_parquet(confirm), tables(finished)
    confirm.write_bytes(confirm.read_bytes()[:-20])
    other = {path: path.stat().st_mtime_ns for path in finished.glob("cells/eval/*/done.json")}
    assert run("study", plan, "--out", finished, "--workers", 1) == 0
    assert pl.read_parquet(confirm).equals(before)
    assert tables(finished) == made
    assert other == {path: path.stat().st_mtime_ns for path in finished.glob("cells/eval/*/done.json")}


def test_what_was_not_chosen_cannot_be_confirmed() -> None:
    from knowshift.study.restored import Confirmation

    chosen = {"method": "relative", "fraction": 0.05, "settings": {}}
    confirmation = Confirmation({"asked": [chosen]}, None, [], {}, 4)  # type: ignore[arg-type]
    with pytest.raises(PermissionError, match=r"relative 0\.2 was not chosen on validation"):
        confirmation.ask({**chosen, "fraction": 0.2})
