"""Does a text give an accepted answer? The paper's containment, and a strict test beside it.

Both look through spelling (case, accents, quotes, white space) and know the other names of a thing
(``aliases.toml``): asked for "United States", "USA" is right. Containment credits an answer anywhere in the
text, also in the middle of a ramble or a word; the strict test wants it as whole words on the first line.
"""

import re
import tomllib
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources

# "USA", "U.K.", "NYC", "79": inside other words these turn up by chance ("us" in "house", "79" in "1979").
_ABBREVIATION = re.compile(r"(?:[A-Z]\.?){1,5}|\d+")
_COMBINING = re.compile("[\u0300-\u036f]")
_NOT_WORD = re.compile(r"[\W_]+")
_LAST_WORD = re.compile(r"[\w.'’]+$")


def contains(text: str, answers: Sequence[str], *, case_sensitive: bool = False) -> bool:
    """Whether ``text`` contains an accepted answer or another name of it (paper, section 2).

    Abbreviations in capitals and bare numbers count only as whole words in that spelling.
    """
    return Matcher(answers, case_sensitive=case_sensitive).contains(text)


def strict(text: str, answers: Sequence[str]) -> bool:
    """Whether the first line of ``text`` holds an accepted answer, or another name of it, as whole words."""
    return Matcher(answers).strict(text)


class Matcher:
    """The two tests for one fact, prepared once and asked many times."""

    def __init__(self, answers: Sequence[str], *, case_sensitive: bool = False) -> None:
        self._fold_case = not case_sensitive
        names = accepted(answers)
        short = [name for name in names if _ABBREVIATION.fullmatch(name)]
        long = [name for name in names if name not in short]
        self._short = _whole_words(short, after=r"(?!\w)")
        self._short_and_more = _whole_words(short, after=r"(?=\W)")
        self._parts = tuple(part for name in long if (part := fold(name, case=self._fold_case)))
        self._words = tuple(words for name in long if (words := _words(name)))

    def contains(self, text: str) -> bool:
        """Containment anywhere in ``text``."""
        folded = fold(text, case=self._fold_case)
        return any(part in folded for part in self._parts) or bool(self._short and self._short.search(text))

    def strict(self, text: str) -> bool:
        """Whole words on the first line of ``text`` that is not blank."""
        line = next((line for line in text.splitlines() if line.strip()), "")
        return self._strict_in(line)

    def settled(self, text: str) -> bool:
        """Whether ``text`` holds an answer and neither test can change its mind, whatever text may follow.

        A completion may end here. "Paris" alone is not settled: "Parisian" may be coming.
        """
        folded = fold(text, case=self._fold_case)
        if not any(part in folded for part in self._parts) and not (
            self._short_and_more and self._short_and_more.search(text)
        ):
            return False
        lines = [line for line in text.splitlines(keepends=True) if line.strip()]
        if len(lines) > 1 or lines[0].splitlines()[0] != lines[0]:
            return True  # the first line is complete
        return self._strict_in(_LAST_WORD.sub("", lines[0]))

    def _strict_in(self, line: str) -> bool:
        if self._short and self._short.search(line):
            return True
        framed = f" {_words(line)} "
        return any(f" {words} " in framed for words in self._words)


def accepted(answers: Sequence[str]) -> tuple[str, ...]:
    """``answers`` with the other names of each, in a stable order and without repeats."""
    groups = alias_groups()
    names: dict[str, None] = {}
    for answer in answers:
        names[answer] = None
        names.update(dict.fromkeys(groups.get(fold(answer), ())))
    return tuple(names)


@cache
def alias_groups() -> dict[str, tuple[str, ...]]:
    """Every name in the alias table, folded, with the names of its group."""
    table = tomllib.loads(resources.files("knowshift.facts").joinpath("aliases.toml").read_text("utf-8"))
    return {fold(name): tuple(group) for group in table["groups"] for name in group}


@lru_cache(maxsize=65_536)
def fold(text: str, *, case: bool = True) -> str:
    """``text`` in one spelling: compatibility forms, Latin accents, quotes, white space and case made equal."""
    if not text.isascii():
        text = _COMBINING.sub("", unicodedata.normalize("NFKD", text))
        text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    text = " ".join(text.split())
    return text.casefold() if case else text


_QUOTES = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "“": '"', "”": '"', "–": "-", "—": "-"})


def _words(text: str) -> str:
    """Folded words alone, one space between: "Washington, D.C." and "washington dc" come out equal."""
    folded = fold(text).replace(".", "").replace("'", "")
    return _NOT_WORD.sub(" ", folded).strip().removeprefix("the ")


def _whole_words(names: Sequence[str], *, after: str) -> re.Pattern[str] | None:
    if not names:
        return None
    return re.compile(r"(?<!\w)(?:" + "|".join(re.escape(name) for name in names) + ")" + after)
