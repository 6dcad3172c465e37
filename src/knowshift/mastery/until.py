"""Score only until enough facts of a level are found; the set is the one that scoring everything would give.

Joins the search (which facts next) with scoring (what level they have).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.mastery.levels import spelled
from knowshift.mastery.search import Search
from knowshift.mastery.select import as_levels, fact_rank, topic_rank
from knowshift.mastery.share import Share, estimate_share
from knowshift.progress import bar


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a search went.

    Attributes:
        found: facts found, of those wanted.
        wanted: how many were wanted.
        looked: facts looked at.
        facts: candidates there are.
        share: estimated share of the level among ``share_of`` facts: those of all topics that were looked into.
        share_of: how many facts these are.
    """

    found: int
    wanted: int
    looked: int
    facts: int
    share: Share
    share_of: int

    def as_json(self) -> dict[str, Any]:
        """For ``run.json``."""
        return asdict(self)

    def lines(self, level: int | tuple[int, ...]) -> list[str]:
        """For people: how much was looked at, and how common the level is."""
        value, low, high = (f"{100 * part:.1f} %" for part in (self.share.value, self.share.low, self.share.high))
        whole = "" if self.share_of == self.facts else f", over the {self.share_of} facts of the topics asked"
        interval = "all were looked at" if self.share.low == self.share.high else f"95 % interval {low} to {high}"
        return [
            f"looked at {self.looked} of {self.facts} facts",
            f"level {spelled(as_levels(level))} is {value} of the facts ({interval}{whole})",
        ]

    def check(self, level: int | tuple[int, ...], split: str, domain: str, run: Path, until: int) -> None:
        """Refuse a search that found too little for a set of ``until`` facts.

        Raises:
            InputError: with the counts.
        """
        if self.found < self.wanted:
            share = "" if self.wanted == until else f"its {self.wanted} of "
            raise InputError(
                f"level {spelled(as_levels(level))} holds {self.found} facts of split {split!r} and domain {domain!r}, "
                f"fewer than {share}--until {until}: all {self.facts} were looked at; they stay scored in {run}"
            )


def outcome(search: Search) -> Outcome:
    """The counts of a search that ended, and what they say of the whole."""
    seen = search.seen()
    share = estimate_share(seen)
    return Outcome(search.found, search.wanted, search.looked, search.facts, share, sum(topic.facts for topic in seen))


def candidates(facts: Sequence[Fact], *, split: str, domain: str) -> list[Fact]:
    """The facts ``select`` chooses from: of one split (of any, where no fact names one) and one domain."""
    named = any(fact.split for fact in facts)
    return [fact for fact in facts if fact.domain == domain and (fact.split == split or not named)]


def find(
    score: Callable[[Sequence[Fact]], pl.DataFrame],
    facts: Sequence[Fact],
    *,
    level: int | tuple[int, ...],
    wanted: int,
    seed: int,
    before: Sequence[Fact] = (),
) -> tuple[pl.DataFrame, Search]:
    """Look at ``facts`` until ``wanted`` of ``level`` are found, or all were looked at.

    ``select(table, level=level, size=wanted, seed=seed)`` then chooses the same facts as from a table of all of
    them. What is scored together follows from the facts, the seed and what was found, so a search that was killed
    and is begun again with the same store and ``before`` ends with the same table.

    Args:
        score: gives the mastery table of facts. It is asked for all facts so far, again and again; those it has
            scored before should cost nothing.
        facts: the candidates.
        level: 0 to 4, or several.
        wanted: how many.
        seed: of the order, as in ``select``.
        before: facts scored earlier that are to stay in the table, at its beginning.

    Returns:
        The table of ``before`` and all facts looked at, and the search with its counts.
    """
    by_id = {fact.id: fact for fact in facts}
    search = Search(ranked(facts, seed), wanted)
    table = {fact.id: fact for fact in before}
    scored = pl.DataFrame()
    with bar(f"facts of level {spelled(as_levels(level))} found", wanted) as advance:
        while batch := search.next():
            table |= {fact: by_id[fact] for fact in batch if fact not in table}
            scored = score(list(table.values()))
            levels = dict(zip(scored["id"].to_list(), scored["level"].to_list(), strict=True))
            had = search.found
            search.tell({fact: levels[fact] in as_levels(level) for fact in batch})
            advance(search.found - had)
    return scored, search


def ranked(facts: Sequence[Fact], seed: int) -> dict[str, list[str]]:
    """Ids by topic: topics in the order of their turns, facts within a topic in the order of ``select``."""
    topics: dict[str, list[str]] = {}
    for fact in facts:
        topics.setdefault(fact.topic, []).append(fact.id)
    return {
        topic: sorted(topics[topic], key=lambda fact: fact_rank(seed, fact))
        for topic in sorted(topics, key=lambda topic: topic_rank(seed, topic))
    }


def check_enough(facts: Sequence[Fact], wanted: int, source: str, *, split: str, domain: str) -> None:
    """Refuse a search that cannot succeed, before anything is scored.

    Raises:
        InputError: if there are fewer candidates than are wanted.
    """
    if wanted < 1:
        raise InputError(f"--until must be at least 1, not {wanted}")
    if len(facts) < wanted:
        raise InputError(
            f"{source} holds {len(facts)} facts of split {split!r} and domain {domain!r}, fewer than --until {wanted}"
        )
