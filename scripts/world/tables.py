"""Reads the hand-written tables beside this file.

``answer | further answers : subject; subject; ...``, one line an answer. ``regions.txt`` has ``region=capital``: "-" is
a capital not asked about, "!" a region whose country is not.
"""

from collections.abc import Iterator
from pathlib import Path

TABLES = {
    "birthplace_of_person.txt": "birth_country_of_person",
    "class_of_animal.txt": "class_of_animal",
    "composer_of_work.txt": "composer_of_work",
    "country_of_dish.txt": "country_of_dish",
    "country_of_landmark.txt": "country_of_landmark",
    "country_of_natural_feature.txt": "country_of_natural_feature",
    "country_of_university.txt": "country_of_university",
    "currency_of_country.txt": "currency_of_country",
    "director_of_film.txt": "director_of_film",
    "discoverer_or_inventor.txt": "discoverer_or_inventor",
    "author_of_book.txt": "author_of_book",
    "headquarters_city.txt": "headquarters_city",
    "language_of_country.txt": "language_of_country",
    "maker_of_product.txt": "maker_of_product",
    "painter_of_painting.txt": "painter_of_painting",
    "planet_of_moon.txt": "planet_of_moon",
    "sport_of_player.txt": "sport_of_player",
}
PEOPLE = {
    "author_of_book",
    "composer_of_work",
    "director_of_film",
    "discoverer_or_inventor",
    "painter_of_painting",
}
SHORT = {"Bach", "Dahl", "Goya", "Hugo", "Kant", "Marx"}  # surnames of four letters that are no other word


def rows(folder: Path) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(topic, subject, answers) of every table."""
    no_surnames = set((folder / "no_surnames.txt").read_text("utf-8").split())
    for file, topic in TABLES.items():
        for answers, subjects in lines(folder / file):
            accepted = (*answers, *surname(answers[0], no_surnames)) if topic in PEOPLE else answers
            for subject in subjects:
                yield topic, subject, tuple(dict.fromkeys(accepted))
    for answers, regions in lines(folder / "regions.txt"):
        for region, capital in (entry.split("=") for entry in regions):
            if not region.startswith("!"):
                yield "country_of_region", region, answers
            if capital != "-":
                yield "capital_of_region", region.lstrip("!"), (capital,)


def lines(path: Path) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The answers and the subjects of each line."""
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            head, _, tail = line.partition(":")
            answers = tuple(answer.strip() for answer in head.replace(";", "|").split("|"))
            yield answers, [subject.strip() for subject in tail.split(";")]


def surname(name: str, no_surnames: set[str]) -> tuple[str, ...]:
    """The surname of a person as a further answer; not where it is an everyday word, or a given name."""
    last = name.split()[-1]
    if last == name or last in no_surnames or (len(last) < 5 and last not in SHORT):
        return ()
    return (last,)
