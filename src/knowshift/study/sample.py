"""Which facts of a pool are taken: topics in turns, at random under a seed."""

from collections.abc import Iterable

from knowshift.facts.fact import Fact
from knowshift.seeds import derive


def balanced(pool: Iterable[Fact], count: int | None, seed: int, purpose: str = "study") -> list[Fact]:
    """``count`` facts (None: all), topics taking turns; fewer are part of more. In the order of topic and id.

    Under one seed each ``purpose`` draws its own.
    """
    order = sorted(pool, key=lambda fact: derive(seed, purpose, fact.id))
    turns: dict[str, int] = {}
    turn: dict[str, int] = {}
    for fact in order:
        turn[fact.id] = turns[fact.topic] = turns.get(fact.topic, 0) + 1
    taken = sorted(order, key=lambda fact: turn[fact.id])[:count]
    return sorted(taken, key=lambda fact: (fact.topic, fact.id))
