"""What a search leaves behind as tables: every model measured, what models said, where weights went back.

Takes measurements, gives tables.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from knowshift.facts.fact import Fact
from knowshift.repair.space import Candidate
from knowshift.repair.split import Part
from knowshift.repair.task import Item
from knowshift.weights.merge.meter import Meter
from knowshift.weights.pairing import Pair

FRONTIER: dict[str, Any] = {
    "name": pl.String,
    "method": pl.String,
    "settings": pl.String,
    "part": pl.String,
    "facts": pl.Int32,
    "items": pl.Int32,
    "known": pl.Int32,
    "knowledge": pl.Float64,
    "task": pl.Float64,
    "knowledge_log_prob": pl.Float64,
    "task_log_prob": pl.Float64,
    "seconds": pl.Float64,
    "chosen": pl.Boolean,
}


def frontier(
    measured: Mapping[tuple[str, Part], pl.DataFrame], candidates: Mapping[str, Candidate], chosen: str
) -> pl.DataFrame:
    """``frontier.parquet``: a row for each model and part.

    Returns:
        name, method (``base`` and ``tuned`` are their own), settings (JSON), part, facts and items (how many it was
        asked; fewer for who left the race early), known (facts answered), knowledge (their share), task (mean score),
        knowledge_log_prob and task_log_prob (means, in nats a token), seconds, chosen.
    """
    rows = []
    for (name, part), table in measured.items():
        own = candidates.get(name)
        facts, items = (table.filter(kind=kind) for kind in ("knowledge", "task"))
        rows.append(
            {
                "name": name,
                "method": own.method if own else name,
                "settings": json.dumps(dict(own.settings) if own else {}),
                "part": part,
                "facts": facts.height,
                "items": items.height,
                "known": facts["score"].sum(),
                "knowledge": facts["score"].mean(),
                "task": items["score"].mean(),
                "knowledge_log_prob": facts["log_prob"].mean(),
                "task_log_prob": items["log_prob"].mean(),
                "seconds": table["seconds"].sum(),
                "chosen": name == chosen,
            }
        )
    return pl.DataFrame(rows, schema=FRONTIER)


def examples(tables: Mapping[str, pl.DataFrame], facts: Sequence[Fact], items: Sequence[Item]) -> pl.DataFrame:
    """``examples.parquet``: what each model said to each fact and prompt of test.

    Args:
        tables: the answers by role, ``base``, ``tuned`` and ``repaired``, of the same facts and items.

    Returns:
        kind (``knowledge`` or ``task``), id, topic (null for a prompt), asked, answers (right ones), and for each role
        its text and, as <role>_right, whether that was right (null by log-likelihood).
    """
    asked: list[tuple[str, str, str | None, str, list[str]]] = [
        ("knowledge", fact.id, fact.topic, fact.question, list(fact.answers)) for fact in facts
    ]
    asked += [("task", item.id, None, item.asked, list(item.completions)) for item in items]
    schema: dict[str, Any] = {
        "kind": pl.String,
        "id": pl.String,
        "topic": pl.String,
        "asked": pl.String,
        "answers": pl.List(pl.String),
    }
    table = pl.DataFrame(asked, schema=schema, orient="row")
    for role, said in tables.items():
        own = said.select("kind", "id", pl.col("text").alias(role), pl.col("right").alias(f"{role}_right"))
        table = table.join(own, on=["kind", "id"], how="inner", maintain_order="left")
    return table


def places(written: Sequence[tuple[Pair, Meter]]) -> pl.DataFrame:
    """``places.parquet``: where the repair changed weights.

    Returns:
        A row a tensor: tensor, layer (null outside of blocks), module, elements, moved (that no longer have the tuned
        bits), removed_norm_share (of the squared norm of its update).
    """
    rows = [
        {
            "tensor": entry.name,
            "layer": entry.place.layer,
            "module": entry.place.module,
            "elements": entry.size,
            "moved": meter.moved,
            "removed_norm_share": meter.removed_norm_share,
        }
        for entry, meter in written
    ]
    return pl.DataFrame(rows, schema_overrides={"layer": pl.Int64})


def means(table: pl.DataFrame) -> dict[str, float]:
    """Mean scores of a model's answers: knowledge, task."""
    return {str(kind): float(rows["score"].to_numpy().mean()) for (kind,), rows in table.group_by("kind")}
