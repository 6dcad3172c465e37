"""The page of a repair: the sentence first, figures as the files hold them, and what was not supported not shown."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import fake_repair
import page_reader
import polars as pl
import pytest
from browser import CHROMIUM, Browser
from fake_run import HOSTILE
from test_report_browser import CUT_OFF, DESKTOP, PHONE, TOO_WIDE

from knowshift.report import build

CHARTS = {"frontier-search", "frontier-validation", "repair-test", "repair-drift", "repair-places"}


@pytest.fixture(scope="module")
def repair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fake_repair.write(tmp_path_factory.mktemp("repair") / "repaired")
    assert build(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(repair: Path) -> page_reader.Element:
    return page_reader.read(repair / "report.html")


def test_the_sentence_comes_first_and_figures_are_the_files(page: page_reader.Element, repair: Path) -> None:
    told = json.loads((repair / "metrics.json").read_text())
    summary = page.all("section", "summary")[0]
    assert summary.all("p")[0].text == told["sentence"] and told["outcome"] == "repaired"
    assert summary.all("dd")[0].text == f"{told['returned']} of {told['lost']}"
    assert f"({100 * told['repair']['low']:.1f}" in summary.all("div")[1].text
    examples = pl.read_parquet(repair / "examples.parquet")
    facts = examples.filter(kind="knowledge")
    for rights, change in fake_changes().items():
        wanted = facts.filter(
            *(
                pl.col(f"{role}_right") == right
                for role, right in zip(("base", "tuned", "repaired"), rights, strict=True)
            )
        )
        shown = [row for row in page.all("tr") if row.attributes.get("data-change") == change]
        assert len(shown) == wanted.height, change
    assert len([row for row in page.all("tr") if row.attributes.get("data-change") == "returned"]) == told["returned"]


def fake_changes() -> dict[tuple[bool, bool, bool], str]:
    return {(True, False, True): "returned", (True, False, False): "still lost", (True, True, False): "newly lost"}


def test_every_model_stands_in_the_frontier(page: page_reader.Element, repair: Path) -> None:
    frontier = pl.read_parquet(repair / "frontier.parquet")
    head, *rows = page.table("Every model measured")
    assert len(rows) == frontier.height and head[-1] == "Task"
    spec = next(s for s in page.all("script") if s.attributes.get("id") == "spec-frontier-search")
    drawn = next(iter(json.loads(spec.text)["datasets"].values()))
    assert {row["name"] for row in drawn} == set(frontier.filter(part="search")["name"]) - {"base"}
    assert [row["name"] for row in drawn if row["chosen"]] == ["coefficients-1-0"]
    assert {path.stem for path in (repair / "charts").glob("*.svg")} == CHARTS


def test_card_and_command_are_shown_as_they_are(page: page_reader.Element, repair: Path) -> None:
    card, command = (pre.text for pre in page.all("pre")[-2:])
    assert card == " ".join((repair / "model/README.md").read_text().split())
    assert shlex.split(command) == [
        *("knowshift", "repair", "smollm2", "/models/my tuned", "--knowledge", "world", "--task", "task.jsonl"),
        *("--task-metric", "exact", "--budget", "10", "--out", "repaired", "--seed", "0"),
    ]


def test_hostile_texts_are_text(page: page_reader.Element) -> None:
    assert {element.tag for element in page.everything()}.isdisjoint({"svg", "iframe", "object"})
    assert len([s for s in page.all("script") if s.attributes.get("type") != "application/json"]) == 1
    assert not any(name.startswith("on") for element in page.everything() for name in element.attributes)
    for text in HOSTILE[:3]:
        assert " ".join(text.split()) in page.text


@pytest.mark.parametrize("metric", ["exact", "log-likelihood"])
def test_where_nothing_came_back_nothing_is_claimed(tmp_path: Path, metric: str) -> None:
    run = fake_repair.write(tmp_path / "run", returned=0.0, metric=metric)
    page = page_reader.read(build(run))
    assert page.all("h1")[0].text == "No repair found for my-tuned"
    assert "No repair returned more than chance explains" in page.all("section", "summary")[0].text
    assert "No checkpoint was written" in page.text and "Drift is measured where" in page.text
    assert ("nats a token" in page.text) == (metric == "log-likelihood")


@pytest.mark.parametrize("missing", ["frontier.parquet", "examples.parquet", "places.parquet", "model/README.md"])
def test_a_missing_file_is_left_out(tmp_path: Path, missing: str) -> None:
    run = fake_repair.write(tmp_path / "run")
    (run / missing).unlink()
    page = page_reader.read(build(run))
    assert page.all("section", "summary")[0].all("p") and len(page.all("h2")) == 6


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_drawn_whole_and_quiet(browser: Browser, repair: Path, width: int, dark: bool) -> None:
    browser.open(repair / "report.html", width, dark=dark)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.run("document.querySelectorAll('.chart img').length") == 0
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(TOO_WIDE) == []
    assert browser.run(CUT_OFF) == []


def test_the_filter_picks_a_change(browser: Browser, repair: Path) -> None:
    browser.open(repair / "report.html", DESKTOP)
    shown = "[...document.querySelectorAll('.changes tbody tr')].filter(r => r.offsetParent !== null)"
    browser.run("document.querySelector('.changes select').focus()")
    browser.type_key("r")
    told = json.loads((repair / "metrics.json").read_text())
    assert browser.run(f"{shown}.length") == told["returned"] > 5
    assert browser.run(f"{shown}.every(r => r.dataset.change === 'returned')")
