"""Names and draws: how two spellings are found to be one, and how a thing's lot is drawn from its name alone."""

import hashlib
import re
import unicodedata

_PLAIN = str.maketrans("øØłŁđĐıħĦ’ʻə", "oOlLdDihH''a")


def ascii_form(text: str) -> str:
    """``text`` as written without accents."""
    plain = text.translate(_PLAIN).replace("ß", "ss").replace("æ", "ae").replace("ð", "d").replace("Þ", "Th")
    return "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))


def normalise(subject: str) -> str:
    """A subject without case, accents, article and punctuation."""
    text = re.sub(r"^(the|a|an) ", "", ascii_form(subject).casefold())
    return " ".join(re.findall(r"\w+", text)) or subject.casefold()


def fold(text: str) -> str:
    """Letters and digits of ``text`` without case and accents."""
    return "".join(c for c in ascii_form(text.casefold()) if c.isalnum())


def lot(*parts: object) -> float:
    """A number in [0, 1) drawn from ``parts`` by hash: the same in every build, whatever else changes."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode("utf-8"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
