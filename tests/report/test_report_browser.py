"""The page in a real browser, at desktop and phone width, with the network off."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from browser import CHROMIUM, Browser
from test_report_page import CHARTS

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

DESKTOP, PHONE = 1280, 390
# An element may be wider than the viewport only inside a box that scrolls by itself.
TOO_WIDE = """
[...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width > 0 && box.right > document.documentElement.clientWidth + 1
    && !e.closest('.scroll, pre') && !e.closest('svg');
}).map(e => e.outerHTML.slice(0, 100))
"""
# Text of a chart that lies outside its drawing would be cut off.
CUT_OFF = """
[...document.querySelectorAll('.chart svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(t => {
    const box = t.getBoundingClientRect();
    return t.textContent && box.width > 0 && (box.left < frame.left - 2 || box.right > frame.right + 2
      || box.top < frame.top - 2 || box.bottom > frame.bottom + 2);
  }).map(t => svg.closest('.chart').dataset.chart + ': ' + t.textContent);
})
"""
MARKS = """
Object.fromEntries([...document.querySelectorAll('.chart')].map(c => [c.dataset.chart,
  c.querySelectorAll('svg .role-mark path, svg .role-mark line, svg .role-mark text').length]))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_drawn_whole_and_quiet(browser: Browser, run: Path, width: int, dark: bool) -> None:
    browser.open(run / "report.html", width, dark=dark)
    assert browser.complaints == []
    outside = [url for url in browser.requests if not url.startswith(("file:", "data:"))]
    assert outside == [] and len([url for url in browser.requests if url.startswith("file:")]) == 1
    marks = browser.run(MARKS)
    assert set(marks) == CHARTS and min(marks.values()) > 0, marks
    assert browser.run("document.querySelectorAll('.chart img').length") == 0, "pictures give way to drawings"
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(TOO_WIDE) == []
    assert browser.run(CUT_OFF) == []


def test_hostile_texts_do_nothing(browser: Browser, run: Path) -> None:
    browser.open(run / "report.html", DESKTOP)
    assert browser.run("document.body.innerHTML.includes('&lt;script&gt;alert(1)')")
    assert (
        browser.run("document.querySelectorAll('main script, main iframe, main [onload], main [onerror]').length") == 0
    )
    assert not any(complaint.startswith("dialog") for complaint in browser.complaints)


def test_the_filter_works_by_hand(browser: Browser, run: Path) -> None:
    browser.open(run / "report.html", DESKTOP)
    shown = "[...document.querySelectorAll('.changes tbody tr')].filter(r => r.offsetParent !== null)"
    everything = browser.run(f"{shown}.length")
    table = pl.concat([pl.read_parquet(path).select("question", "change") for path in (run / "transitions").iterdir()])
    moved = table.filter(pl.col("change").is_in(["lost", "gained"]))
    assert everything == moved.height > 20

    browser.click(".changes input")
    browser.type("CAPITAL of")
    about = moved.filter(pl.col("question").str.to_lowercase().str.contains("capital of"))
    assert 0 < browser.run(f"{shown}.length") < everything
    assert browser.run(f"{shown}.every(r => /capital[^]*of|of[^]*capital/i.test(r.textContent))")
    assert browser.run(f"{shown}.length") >= about.height
    assert browser.run("document.querySelector('.changes output').textContent").endswith(f"of {everything} shown")

    browser.run("document.querySelector('.changes input').select()")
    browser.type("no fact is called this")
    assert browser.run(f"{shown}.length") == 0

    browser.open(run / "report.html", DESKTOP)
    browser.click(".changes select:last-of-type")
    browser.run("document.querySelectorAll('.changes select')[1].focus()")
    browser.type_key("g")
    assert browser.run(f"{shown}.length") == moved.filter(change="gained").height
    assert browser.run(f"{shown}.every(r => r.dataset.change === 'gained')")


def test_a_tooltip_shows_the_figures(browser: Browser, run: Path) -> None:
    browser.open(run / "report.html", DESKTOP)
    browser.hover('[data-chart="mastery-levels"] svg .mark-rect path')
    assert browser.wait("document.querySelector('#vg-tooltip-element.visible') !== null")
    assert "In-domain" in browser.run("document.querySelector('#vg-tooltip-element').innerText")


def test_without_scripts_it_is_a_plain_page(browser: Browser, run: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(run / "report.html", PHONE, drawn=False)
        seen = "document.querySelectorAll('{}').length"
        assert browser.run(
            "[...document.querySelectorAll('.chart img')].every(i => i.complete && i.naturalWidth > 200)"
        )
        assert browser.run(seen.format(".chart img")) == len(CHARTS)
        assert browser.run(seen.format(".chart svg")) == 0
        assert browser.run("getComputedStyle(document.querySelector('.filters')).display") == "none"
        assert browser.run(seen.format(".changes tbody tr:not([hidden])")) > 20
        assert browser.run("document.documentElement.scrollWidth") <= PHONE
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
