"""All models of a study asked the same facts: a matrix of facts by models, for each thing that was measured.

Knows no files and no tables' layout; gives means over facts and seeds with their intervals.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from knowshift.measure.bootstrap import RESAMPLES
from knowshift.measure.strata import with_strata
from knowshift.study.crossed import Crossed, Floats, Resampled

BOTH = "both"


class Panel:
    """Facts by models.

    Args:
        facts: one row a fact: id, domain, level.
        models: one row a model: what it is told by.
        values: (facts, models) of each measure; truth values are shares from 0 to 1, other numbers have no ends.
        seed, resamples: of the intervals.
    """

    def __init__(
        self,
        facts: pl.DataFrame,
        models: pl.DataFrame,
        values: Mapping[str, npt.NDArray[np.generic]],
        *,
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> None:
        self.facts, self.models, self.values = facts, models, dict(values)
        self.seed, self.resamples = seed, resamples
        self._counted = with_strata(facts.with_row_index("row"))
        self._drawn: dict[tuple[str, int | None, bool], tuple[npt.NDArray[np.intp], Resampled]] = {}

    @property
    def domains(self) -> list[str]:
        """Domains with facts, in-domain first."""
        return sorted(set(self._counted["domain"]))

    def levels(self, domain: str) -> list[int]:
        """Levels with facts of a domain; none where nothing has a level."""
        return sorted(level for level in set(self._inside(domain)["stratum"]) if level >= 0)

    def count(self, domain: str, level: int | None = None) -> int:
        """Facts that a mean is over."""
        return self._inside(domain, level).height

    def places(self, rows: pl.DataFrame) -> list[int]:
        """Where the models of ``rows``, with their column `place`, stand."""
        return [int(place) for place in rows["place"]]

    def table(self, measure: str, places: Sequence[int], domain: str, level: int | None = None) -> Floats:
        """(facts, places) values of the facts that a mean is over."""
        rows, _ = self._scope(domain, level, self._boolean(measure))
        return self.values[measure][rows[:, None], list(places)].astype(np.float64)

    def means(
        self,
        measure: str,
        wanted: Sequence[Sequence[int]],
        domain: str,
        level: int | None = None,
        *,
        against: Sequence[Sequence[int]] | None = None,
    ) -> list[Crossed]:
        """The mean of each list of models, a seed each: over levels, all alike, or of one level.

        Args:
            measure: a key of ``values``.
            wanted: lists of places in ``models``.
            domain: `id`, `ood`, or `both`: their mean.
            level: of the facts; by default the unweighted mean over levels.
            against: lists of places too; what is given is then wanted less against, fact by fact and seed by seed.
        """
        tables = [self.table(measure, places, domain, level) for places in wanted]
        if against is not None:
            tables = [
                table - self.table(measure, places, domain, level)
                for table, places in zip(tables, against, strict=True)
            ]
        return self.crossed(tables, domain, level, shares=self._boolean(measure), signed=against is not None)

    def crossed(
        self, tables: Sequence[Floats], domain: str, level: int | None = None, *, shares: bool, signed: bool
    ) -> list[Crossed]:
        """Means of tables of (facts, seeds) as ``table`` gives them, or of sums of such.

        Args:
            shares: whether the values come of truth values.
            signed: whether they are differences.
        """
        _, drawn = self._scope(domain, level, shares)
        return drawn.crossed(tables, ((-1.0, 1.0) if signed else (0.0, 1.0)) if shares else None)

    def each(self, measure: str, places: Sequence[int], domain: str, level: int | None = None) -> Floats:
        """(places,) means without intervals."""
        _, drawn = self._scope(domain, level, self._boolean(measure))
        return drawn.means(self.table(measure, places, domain, level))

    def _boolean(self, measure: str) -> bool:
        return self.values[measure].dtype == np.bool_

    def _inside(self, domain: str, level: int | None = None) -> pl.DataFrame:
        own = self._counted if domain == BOTH else self._counted.filter(domain=domain)
        return own if level is None else own.filter(stratum=level)

    def _scope(self, domain: str, level: int | None, pseudo: bool) -> tuple[npt.NDArray[np.intp], Resampled]:
        key = domain, level, pseudo
        if key not in self._drawn:
            own = self._inside(domain, level)
            if own.is_empty():
                raise ValueError(f"no facts of domain {domain}, level {level}")
            resampled = Resampled(
                own["stratum"].to_numpy(),
                own["domain"].to_numpy(),
                pseudo=pseudo,
                seed=self.seed,
                resamples=self.resamples,
            )
            self._drawn[key] = own["row"].to_numpy().astype(np.intp), resampled
        return self._drawn[key]
