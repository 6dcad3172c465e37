"""Colours can be told from what they stand on (WCAG 2: text 4.5:1, marks 3:1), on white and on dark paper."""

import re
from importlib import resources

import pytest

from knowshift.report import theme

STYLE = resources.files("knowshift.report").joinpath("style.css").read_text("utf-8")


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def scheme(number: int) -> dict[str, str]:
    """The colours of the first (light) or second (dark) block of variables."""
    block = re.findall(r":root \{(.*?)\}", STYLE, re.S)[number]
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))


@pytest.mark.parametrize("number", [0, 1])
def test_text_and_marks_stand_out(number: int) -> None:
    colours = scheme(number)
    for ink in ("ink", "muted", "link", "lost", "gained"):
        for ground in ("paper", "panel"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    methods = [look[1] for look in theme.METHODS.values()]
    for mark in [*theme.MODELS.values(), *theme.SPARE, *methods, *theme.CHANGES.values()]:
        assert contrast(mark, colours["paper"]) >= 3, mark


def test_white_numbers_read_on_every_change() -> None:
    for colour in theme.CHANGES.values():
        assert contrast("#ffffff", colour) >= 4.5, colour


def test_dark_paper_replaces_every_neutral_of_the_charts() -> None:
    for neutral in (theme.INK, theme.MUTED):
        assert f'[fill="{neutral}"]' in STYLE and f'[stroke="{neutral}"]' in STYLE
    assert f'[stroke="{theme.GRID}"]' in STYLE


def test_every_model_has_its_own_colour() -> None:
    names = [*(theme.MODELS.keys() - {"base-few-shot"}), "other", "another"]
    colours = theme.model_colours(names)
    assert len(set(colours)) == len(names)
    assert theme.model_colours(["low"]) == [theme.MODELS["low"]]
