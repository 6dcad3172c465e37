"""Facts and items for a tiny model to be asked, as if its base knew them."""

import polars as pl

from knowshift.facts.fact import Fact
from knowshift.generate.engine import Prompt
from knowshift.repair.knowledge import Knowledge
from knowshift.repair.objective import Objective
from knowshift.repair.split import split
from knowshift.repair.task import Item

FACTS = [Fact(f"f{number}", f"Where is lake {number}?", (f"Land{number}",)) for number in range(80)]
ITEMS = [Item(f"i{number}", Prompt(f"turn {number}", key=""), (f" done {number}",), "task") for number in range(80)]
KNOWN = Knowledge(split(FACTS[3:], lambda fact: fact.question), tuple(FACTS[:3]), pl.DataFrame())


def objective(metric="exact"):
    return Objective(KNOWN, ITEMS, "task.jsonl", metric=metric)
