"""A study's page in a real browser: drawn and quiet on a desk and a phone, filtered by click, from marks to rows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from test_report_browser import CUT_OFF, DESKTOP, PHONE, TOO_WIDE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

SHOWN = "[...document.querySelectorAll('#table-{} tbody tr:not([hidden])')]"
MARKS = "document.querySelectorAll('[data-chart={}] .mark-symbol path').length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def desk(browser: Browser, study: Path) -> Browser:
    browser.open(study / "report.html", DESKTOP)
    return browser


def pick(browser: Browser, name: str, value: str) -> None:
    """A click on a filter's button."""
    browser.click(f"[data-filter={name}] button[data-value={value!r}]")


@pytest.mark.parametrize(("width", "dark"), [(DESKTOP, False), (PHONE, True)])
def test_drawn_whole_and_quiet(browser: Browser, study: Path, width: int, dark: bool) -> None:
    browser.open(study / "report.html", width, dark=dark)
    assert browser.run("document.querySelectorAll('.drawing svg').length") == 12
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(TOO_WIDE) == []
    assert browser.run(CUT_OFF) == []


def test_a_filter_narrows_charts_and_tables(desk: Browser) -> None:
    before, rows = desk.run(MARKS.format("size")), desk.run(SHOWN.format("accuracy") + ".length")
    pick(desk, "level", "level 2")
    assert desk.wait(f"{MARKS.format('size')} < {before}")
    assert 0 < desk.run(SHOWN.format("accuracy") + ".length") < rows
    levels = "[...new Set({}.map(r => r.dataset.level ?? 'base'))].sort().join()"
    assert desk.run(levels.format(SHOWN.format("accuracy"))) == "base,level 2"
    pick(desk, "size", "240")
    assert desk.run(f"{SHOWN.format('confirmed')}.every(r => r.dataset.size === '240')")
    assert desk.run("document.querySelectorAll('#table-size thead th[hidden]').length") == 1
    assert "level 2, 240" in desk.run("document.querySelector('.bar output').textContent")
    pick(desk, "domain", "ood")
    titles = "[...document.querySelectorAll('[data-chart=size] .role-column-title, [data-chart=size] .role-title')]"
    assert desk.wait(f"{titles}.every(t => !/In-domain/.test(t.textContent))")
    desk.click(".clear")
    assert desk.wait(f"{MARKS.format('size')} === {before}")
    assert desk.run(SHOWN.format("accuracy") + ".length") == rows
    assert desk.complaints == []


def test_one_seed_stands_alone(desk: Browser) -> None:
    mean = desk.run("document.querySelector('[data-chart=accuracy] .mark-text').textContent")
    pick(desk, "seed", "1")
    assert desk.wait(f"document.querySelector('[data-chart=accuracy] .mark-text').textContent !== {mean!r}")
    pick(desk, "seed", "0")
    pressed = (
        "[...document.querySelectorAll('[data-filter=seed] [aria-pressed=true]')].map(b => b.dataset.value).join()"
    )
    assert desk.run(pressed) == "0"
    assert desk.run("document.querySelectorAll('#table-seeds thead th[hidden]').length") == 1
    assert desk.complaints == []


def test_a_mark_leads_to_its_row(desk: Browser) -> None:
    assert not desk.run("document.querySelector('#table-strategies').open")
    desk.click("[data-chart=strategies] .mark-symbol path")
    assert desk.wait("document.querySelector('#table-strategies').open")
    picked = desk.run("document.querySelector('tr.picked').textContent")
    assert "base, asked trained" in picked


def test_a_claim_leads_to_its_rows(desk: Browser) -> None:
    desk.click('[data-claim="low-mastery"]')
    assert desk.wait("document.querySelector('#table-accuracy').open")
    assert desk.run(f"{SHOWN.format('accuracy')}.every(r => r.dataset.size === '240')")
    assert desk.run(f"{SHOWN.format('accuracy')}.length") > 0
    assert "the claim" in desk.run("document.querySelector('#table-accuracy .shown').textContent")
    desk.click(".clear")
    assert desk.run("document.querySelectorAll('#table-accuracy tr[hidden]').length") == 0


def test_hostile_names_do_nothing(desk: Browser) -> None:
    desk.hover("[data-chart=size] .mark-symbol path")
    assert desk.wait("document.querySelector('#vg-tooltip-element.visible') !== null")
    assert (
        desk.run("document.querySelectorAll('main script, main iframe, [onerror], #vg-tooltip-element img').length")
        == 0
    )
    assert not any(complaint.startswith("dialog") for complaint in desk.complaints)
