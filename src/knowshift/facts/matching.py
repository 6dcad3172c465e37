"""Does a text give an accepted answer? The paper's containment, and a strict test beside it.

Both look through spelling (case, accents, quotes, white space, initials, what is invisible) and know the other names
of a thing (``aliases.toml``): asked for "United States", "USA" is right. Containment credits an answer of the data
anywhere in the text, also in the middle of a ramble or a word, as the paper does; any other name or spelling of it
counts as whole words. The strict test wants all of them as whole words, on the first line. So what is strictly right
is contained, always.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any

# "USA", "U.K.", "79": inside other words these turn up by chance ("us" in "house", "79" in "1979"), so they count as
# whole words in that spelling. Four capitals and more are in data as often a name in capitals ("PERU"): as whole words
# too ("SEAT" is not in "Seattle"), but in any case.
_ABBREVIATION = re.compile(r"(?:[A-Z]\.?){1,5}|\d+")
_OWN_ABBREVIATION = re.compile(r"(?:[A-Z]\.?){1,3}|\d+")
# The longest name that is also looked for as "Mozart, Wolfgang Amadeus".
_TURNED = 5

# Accents on Latin letters; what has no width or only says in which direction to write (category Cf), and which of two
# pictures a character has: all of it comes and goes by copying.
_LOST = re.compile(
    "[\u00ad\u0300-\u036f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001-\U000e007f\U000e0100-\U000e01ef]"
)
# Letters that do not come apart into a plain one and an accent, quotes and dashes.
_PLAIN = str.maketrans(
    {
        **dict(zip("łŁøØđĐðÐħĦŧŦıĸ", "lLoOdDdDhHtTiq", strict=True)),
        **dict(zip("æÆœŒþÞßẞ", ("ae", "AE", "oe", "OE", "th", "TH", "ss", "SS"), strict=True)),
        **dict.fromkeys("‘’‚‛ʼʻʹʽ′", "'"),
        **dict.fromkeys("“”„‟«»", '"'),
        **dict.fromkeys("‐‒–—―−", "-"),
    }
)

# Between words. Anything that is named nowhere here is part of a word: letters, digits, and the vowel signs of scripts
# that write them apart.
_BETWEEN = (
    r"\s_,;:!?\"()\[\]{}/\\|^~*\-" + "\u00a1-\u00a9\u00ab-\u00af\u00b6\u00b7\u00bb\u00bf\u05be\u05c0\u05c3\u05f3\u05f4"
    "\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965\u1362-\u1368\u2010-\u2029\u2030-\u205e\u2190-\u2bff"
    "\u3001-\u3003\u3008-\u3020\u30fb\U0001f000-\U0001faff"
)
_SYMBOLS = "&%$@=<>°€£¥+#"
# Scripts without spaces (Thai to Khmer, kana, Han): each character stands as a word, so that names are found.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30fa\u30fc-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_IN_WORD = rf"[^{_BETWEEN}{_SYMBOLS}{_UNSPACED}.']"
_LETTER = r"[^\W\d_]"

_WORD = re.compile(rf"[{_UNSPACED}]|{_IN_WORD}+(?:'{_IN_WORD}+)*[+#]*|[{_SYMBOLS}]")
_CLAUSE = re.compile(_WORD.pattern + r"|[,.;:!?()\[\]\n]")
_STOP = re.compile(r"(?<= )[.;:!?()\[\]\n](?= )")
# "P. G." and "P.G.", which then read "PG".
_INITIALS = re.compile(rf"(?<!{_IN_WORD}){_LETTER}(?:\.{_LETTER}(?!{_IN_WORD}|')|\. {_LETTER}(?=\.))+\.?")
_OPEN_END = re.compile(rf"(?:{_IN_WORD}|[.'+#])*[{_UNSPACED}]?(?:(?<!{_IN_WORD}{{2}}) ?\.{_LETTER}(?!{_IN_WORD}))*")


def contains(text: str, answers: Sequence[str], *, case_sensitive: bool = False) -> bool:
    """Whether ``text`` contains an accepted answer or another name of it (paper, section 2).

    Other names, abbreviations in capitals and bare numbers count only as whole words, the latter two in that
    spelling. With ``case_sensitive`` an answer in other capitals does not count.
    """
    return Matcher(answers, case_sensitive=case_sensitive).contains(text)


def strict(text: str, answers: Sequence[str], *, case_sensitive: bool = False) -> bool:
    """Whether the first line of ``text`` holds an accepted answer, or another name of it, as whole words."""
    return Matcher(answers, case_sensitive=case_sensitive).strict(text)


class Matcher:
    """The two tests for one fact, prepared once and asked many times; each takes time linear in the text."""

    def __init__(self, answers: Sequence[str], *, case_sensitive: bool = False) -> None:
        self._fold_case = not case_sensitive
        parts: dict[str, None] = {}
        spelled: list[str] = []
        whole: dict[str, None] = {}
        turned: dict[str, None] = {}
        for name in accepted(answers):
            own = name in answers
            if (_OWN_ABBREVIATION if own else _ABBREVIATION).fullmatch(name):
                spelled.append(_abbreviation(name))
                continue
            if not own and name in _table()["everyday_words"]:
                spelled.append(rf"(?<!\w){re.escape(fold(name, case=False))}(?!\w)")
                continue
            part = fold(name, case=self._fold_case)
            if own and part and not _ABBREVIATION.fullmatch(name):
                parts[part] = None
            spelled += _without_article(name)
            spellings = [sequence for form in self._forms(name) for sequence in _sequences(form)]
            whole.update(dict.fromkeys(spellings))
            turned.update(dict.fromkeys(form for spelling in spellings for form in _turned(name, spelling)))
        self._parts = tuple(parts)
        self._spelled = re.compile("|".join(spelled)) if spelled else None
        self._whole = tuple((_probe(sequence), f" {sequence} ") for sequence in whole)
        self._turned = tuple(turned)

    def contains(self, text: str) -> bool:
        """Containment anywhere in ``text``."""
        return self._contains(_plain(text))

    def strict(self, text: str) -> bool:
        """Whole words on the first line of ``text`` that is not blank."""
        return self._holds(next((line for line in _plain(text).splitlines() if line.strip()), ""))

    def settled(self, text: str) -> bool:
        """Whether ``text`` holds an answer and neither test can change its mind, whatever text may follow.

        A completion may end here. "Paris" alone is not settled: "Parisian" may be coming.
        """
        text = _plain(text)
        if not self._contains(text):
            return False
        lines = text.splitlines(keepends=True)
        first = next(index for index, line in enumerate(lines) if line.strip())
        if first == len(lines) - 1 and lines[first].splitlines()[0] == lines[first]:
            return self._holds(_lasting(lines[first]), ended=False)  # the first line may go on
        if self._holds(lines[first]):
            return True  # what is strictly right is contained
        folded = _lasting_part(fold(text, case=self._fold_case))
        return any(part in folded for part in self._parts) or self._holds(_lasting(text), ended=False)

    def _contains(self, text: str) -> bool:
        if self._parts:
            folded = " ".join((text.casefold() if self._fold_case else text).split())
            if any(part in folded for part in self._parts):
                return True
        return self._holds(text)

    def _holds(self, text: str, *, ended: bool = True) -> bool:
        """Whether plain ``text`` holds a name as whole words; without ``ended`` more words may follow."""
        if self._spelled and self._spelled.search(text):
            return True
        if self._fold_case:
            text = text.casefold()
        close = _squeezed(text)
        near = [sequence for probe, sequence in self._whole if probe in close]
        if near:
            framed = _words(text)
            if any(sequence in framed for sequence in near):
                return True
        if self._turned and "," in text:
            framed = _clauses(text, ended=ended)
            return any(form in framed for form in self._turned)
        return False

    def _forms(self, name: str) -> Iterator[str]:
        """A name, and the same without its article or in the order in which names are said."""
        text = _plain(name)
        text = " ".join((text.casefold() if self._fold_case else text).split())
        yield text
        article, _, rest = text.partition(" ")
        if rest and article.casefold() == "the":
            yield f"the {rest}"
            if " " in rest:
                yield rest
        last, comma, first = text.partition(", ")
        if comma and "," not in first:
            yield f"{first} {last}"


def _abbreviation(name: str) -> str:
    """A pattern for capitals with or without dots ("U.S." is not in "U.S.S.R."), or a number, as a whole word."""
    if name.isdigit():
        return rf"(?<!\w){name}(?!\w)"
    return r"(?<!\w)(?<!\b[A-Z]\.)" + r"\.?".join(re.findall(r"\w", name)) + r"(?![\w+#]|\.[A-Z]\b)"


def _without_article(name: str) -> Iterator[str]:
    """A pattern for "Beatles" where "The Beatles" is right.

    Where one word is left ("The Who", "The Band") it may mean anything, so it counts only if the text opens with it
    in that spelling.
    """
    article, _, rest = fold(name, case=False).partition(" ")
    if article.casefold() == "the" and rest and " " not in rest:
        yield rf"\A\W*{re.escape(rest)}(?!\w)"


def _turned(name: str, sequence: str) -> Iterator[str]:
    """How a catalogue writes a name: what comes last first, after a comma, and then nothing that goes on."""
    parts = sequence.split()
    if "," not in name and 2 <= len(parts) <= _TURNED and not {"of", "and", "the"} & set(parts):
        for cut in range(1, len(parts)):
            yield f" {' '.join(parts[cut:])} , {' '.join(parts[:cut])} |"
            yield f" {' '.join(parts[cut:])} , {' '.join(parts[:cut])} ,"


def _probe(sequence: str) -> str:
    """A part of ``sequence`` without which no text can hold it: cheap to look for first."""
    return max((word for word in sequence.split() if word != "and"), key=len, default="")


def accepted(answers: Sequence[str]) -> tuple[str, ...]:
    """``answers`` with the other names of each, in a stable order and without repeats."""
    groups = alias_groups()
    names: dict[str, None] = {}
    for answer in answers:
        names[answer] = None
        names.update(dict.fromkeys(groups.get(_key(answer), ())))
    return tuple(names)


@cache
def alias_groups() -> dict[str, tuple[str, ...]]:
    """Every name in the alias table, folded and without dots and commas, with the names of its group."""
    return {_key(name): tuple(group) for group in _table()["groups"] for name in group}


@cache
def _table() -> dict[str, Any]:
    table = tomllib.loads(resources.files("knowshift.facts").joinpath("aliases.toml").read_text("utf-8"))
    return table | {"everyday_words": frozenset(table["everyday_words"])}


def _key(name: str) -> str:
    """What two spellings of a name have in common; "US" is not "us"."""
    if re.fullmatch(r"(?:[A-Z]\.?){2}", name):
        return name.replace(".", "")
    text = _joined_initials(fold(name)).replace("&", " and ").replace(".", "").replace(",", "")
    return " ".join(text.split())


def _plain(text: str) -> str:
    """``text`` in compatibility forms, without accents and what is invisible, with plain quotes and dashes."""
    if text.isascii():
        return text
    text = _LOST.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFKC", text).translate(_PLAIN)


def fold(text: str, *, case: bool = True) -> str:
    """Plain ``text`` with single spaces, and unless ``case`` is false in small letters."""
    text = " ".join(_plain(text).split())
    return text.casefold() if case else text


def _words(text: str) -> str:
    """The words of plain ``text``, a space around each: initials joined, "&" as "and", no punctuation.

    A word with "'s" is there twice, as "disney s" and as "disneys": it may be a name and its ending, or all a name.
    """
    joined = f" {' '.join(_WORD.findall(_joined_initials(text)))} ".replace(" & ", " and ")
    if "'" not in joined:
        return joined
    apart = joined.replace("'s ", " s ").replace("'", "")
    whole = joined.replace("'", "")
    return apart if apart == whole else f"{apart}\n{whole}"


def _sequences(name: str) -> list[str]:
    """The ways in which plain ``name`` may stand in ``words`` of a text; none if it has no words."""
    return [sequence for line in _words(name).split("\n") if (sequence := line.strip())]


def _clauses(text: str, *, ended: bool) -> str:
    """``words`` with every comma as a word, and "|" wherever a clause ends otherwise."""
    text = "\n".join(_joined_initials(text).splitlines())
    joined = f" {' '.join(_CLAUSE.findall(text))} ".replace(" & ", " and ").replace("'", "")
    return _STOP.sub("|", joined) + ("| " if ended else "")


def _squeezed(text: str) -> str:
    """``text`` in which every word of ``words``, but for "and", is found without a break."""
    return text.replace(" ", "").replace(".", "").replace("'", "")


def _lasting(text: str) -> str:
    """Plain ``text`` without the end that could become another word if the text went on."""
    return text[: len(text) - _OPEN_END.match(text[::-1]).end()]  # type: ignore[union-attr]


def _lasting_part(folded: str) -> str:
    """Folded text without a last character that could still change its form: Latin letters take no more accents."""
    if folded[-1:].isascii():
        return folded
    end = len(folded)
    while end and unicodedata.combining(folded[end - 1]):
        end -= 1
    return folded[: max(end - 1, 0)]


def _joined_initials(text: str) -> str:
    if "." not in text:
        return text
    return _INITIALS.sub(lambda match: match[0].replace(".", "").replace(" ", ""), text)
