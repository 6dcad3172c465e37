"""Where models are measured: every answer is asked for once, and kept as a file.

A candidate measured on more facts or items than before is asked only for those that are new, so a race costs no
answer twice, and a search that was killed goes on where it was.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import polars as pl

from knowshift.errors import InputError
from knowshift.files import write_parquet
from knowshift.generate.engine import Engine
from knowshift.repair.objective import Objective
from knowshift.repair.scores import Scores, side_by_side
from knowshift.repair.split import Part

KINDS = ("knowledge", "task")


class Bench:
    """Measurements of models by name.

    Args:
        objective: what is asked.
        most: facts and items that are asked of each part at most: the first ones.
        folder: for ``<name>/<part>-<facts>-<items>.parquet``: what was asked after so many facts and items.
        holding: the engine of a model, while a block lasts.

    Attributes:
        most: facts and items of each part that there are.
        asked: answers that were asked for by this bench.
    """

    def __init__(
        self,
        objective: Objective,
        most: Mapping[Part, tuple[int, int]],
        folder: Path,
        holding: Callable[[str], AbstractContextManager[Engine]],
    ) -> None:
        self.objective = objective
        self.most = {
            part: (min(facts, len(objective.facts[part])), min(items, len(objective.items[part])))
            for part, (facts, items) in most.items()
        }
        self.folder = folder
        self.asked = 0
        self._holding = holding

    def table(self, name: str, part: Part, facts: int | None = None, items: int | None = None) -> pl.DataFrame:
        """The answers of one model to the first so many facts and items of a part, all of them by default.

        Returns:
            As ``Objective.measure``, and seconds: what asking took, shared out evenly.
        """
        wanted = self._wanted(part, facts, items)
        pieces = self._pieces(name, part)
        have = _counts(pieces)
        missing = [range(count, max(count, needed)) for count, needed in zip(have, wanted, strict=True)]
        if any(missing):
            with self._holding(name) as engine:
                begun = time.monotonic()
                found = self.objective.measure(engine, part, facts=missing[0], items=missing[1])
                seconds = (time.monotonic() - begun) / found.height
            found = found.with_columns(seconds=pl.lit(seconds))
            write_parquet(self.folder / name / f"{part}-{have[0]:06}-{have[1]:06}.parquet", found)
            self.asked += found.height
            pieces.append(found)
        whole = pl.concat(pieces)
        return pl.concat([whole.filter(kind=kind).head(count) for kind, count in zip(KINDS, wanted, strict=True)])

    def has(self, name: str, part: Part, facts: int | None = None, items: int | None = None) -> bool:
        """Whether nothing would have to be asked."""
        pairs = zip(_counts(self._pieces(name, part)), self._wanted(part, facts, items), strict=True)
        return all(count >= needed for count, needed in pairs)

    def scores(self, names: Iterable[str], part: Part, facts: int | None = None, items: int | None = None) -> Scores:
        """The answers of several models side by side."""
        return side_by_side({name: self.table(name, part, facts, items) for name in names})

    def measured(self) -> dict[tuple[str, Part], pl.DataFrame]:
        """All there is, by name and part."""
        found: dict[tuple[str, Part], pl.DataFrame] = {}
        for folder in sorted(path for path in self.folder.iterdir() if path.is_dir()):
            for part in self.most:
                if pieces := self._pieces(folder.name, part):
                    found[folder.name, part] = pl.concat(pieces)
        return found

    def _wanted(self, part: Part, facts: int | None, items: int | None) -> tuple[int, int]:
        most_facts, most_items = self.most[part]
        wanted_facts = most_facts if facts is None else min(facts, most_facts)
        return wanted_facts, most_items if items is None else min(items, most_items)

    def _pieces(self, name: str, part: Part) -> list[pl.DataFrame]:
        files = sorted((self.folder / name).glob(f"{part}-*.parquet"))
        try:
            return [pl.read_parquet(file) for file in files]
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(f"{self.folder / name}: cannot be read; remove it and it is measured again") from error


def _counts(pieces: Iterable[pl.DataFrame]) -> tuple[int, int]:
    """How many facts and items."""
    tables = list(pieces)
    facts, items = (sum(table.filter(kind=kind).height for table in tables) for kind in KINDS)
    return facts, items
