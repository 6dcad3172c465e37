"""What a candidate is measured by: known facts and task items, each right or wrong, the same ones for every candidate.

Facts and items of a part stand in an order drawn once, so that what is measured first is a sample of the whole, more
can be added to it, and two candidates always pair. Knows the engine; not what candidates are or which is better.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import polars as pl

from knowshift.generate.engine import Engine
from knowshift.measure.accuracy import evaluate
from knowshift.repair.knowledge import FORM, Knowledge
from knowshift.repair.split import PARTS, Part, check_enough, drawn, split
from knowshift.repair.task import Item, Metric, ask

Kind = Literal["knowledge", "task"]
SCHEMA: dict[str, Any] = {
    "kind": pl.String,
    "id": pl.String,
    "right": pl.Boolean,
    "score": pl.Float64,
    "log_prob": pl.Float64,
    "text": pl.String,
}

T = TypeVar("T")


class Objective:
    """The facts that the base knows and the user's task, by part.

    Args:
        knowledge: of the base.
        items: of the task; ``source`` names them in messages.
        metric: of the task.
        seed: of the orders.
        max_new_tokens: longest answer to a fact.

    Attributes:
        facts, items: what is measured, by part and in order: a caller that learns on search takes them from here.

    Raises:
        InputError: if a part has too few items.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        items: Sequence[Item],
        source: str,
        *,
        metric: Metric = "exact",
        seed: int = 0,
        max_new_tokens: int = 16,
    ) -> None:
        parts = split(items, lambda item: item.asked)
        check_enough(parts, source, "prompts")
        self.metric: Metric = metric
        self.shots = knowledge.shots
        self.facts = {part: drawn(knowledge.known[part], lambda fact: fact.id, seed) for part in PARTS}
        self.items = {part: drawn(parts[part], lambda item: item.id, seed) for part in PARTS}
        self._max_new_tokens = max_new_tokens

    def measure(
        self, engine: Engine, part: Part, *, facts: range | None = None, items: range | None = None
    ) -> pl.DataFrame:
        """Ask the model as it is now.

        Args:
            engine: the candidate.
            part: which facts and items.
            facts, items: the places in the part's order that are asked; None: all.

        Returns:
            One row a fact and then a task item, in order: kind (``knowledge`` or ``task``), id, right (null for a task
            by log-likelihood), score (1 or 0; for log-likelihood ``log_prob``), log_prob (of the preferred answer, in
            nats per token), text (what was said).
        """
        some = _taken(self.facts[part], facts)
        tables = [pl.DataFrame(schema=SCHEMA)]
        if some:
            answers = evaluate(engine, some, max_new_tokens=self._max_new_tokens, form=FORM, shots=self.shots)
            tables.append(
                answers.select(
                    pl.lit("knowledge").alias("kind"),
                    "id",
                    pl.col("contains").alias("right"),
                    pl.col("contains").cast(pl.Float64).alias("score"),
                    pl.col("gold_log_prob").alias("log_prob"),
                    "text",
                )
            )
        if own := _taken(self.items[part], items):
            answers = ask(engine, own, self.metric)
            tables.append(answers.select(pl.lit("task").alias("kind"), "id", "right", "score", "log_prob", "text"))
        return pl.concat(tables)


def _taken(rows: Sequence[T], places: range | None) -> list[T]:
    return list(rows) if places is None else [rows[place] for place in places if place < len(rows)]
