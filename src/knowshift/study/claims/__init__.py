"""The paper's claims, and what a study says of each: supported, not supported, or not resolved at this sample."""

from collections.abc import Mapping

from knowshift.study.claims.claim import Claim, as_tables
from knowshift.study.claims.repair import beyond_interpolation, beyond_lora, beyond_tuning, first_layers
from knowshift.study.claims.training import damage, divergence, low_mastery, middle, size
from knowshift.study.claims.weights import concentration, feed_forward
from knowshift.study.measures import Measures
from knowshift.study.tables.table import Table

__all__ = ["Claim", "as_tables", "judge"]


def judge(measures: Measures, tables: Mapping[str, Table] | None = None) -> list[Claim]:
    """Every claim, of every base model, in the paper's order.

    Args:
        measures: of a study.
        tables: as ``tables.build`` makes them, if they are at hand.
    """
    made = (tables["drift"], tables["accuracy"]) if tables else None
    found = []
    for model in measures.models:
        found += [
            size(measures, model),
            low_mastery(measures, model),
            middle(measures, model),
            divergence(measures, model),
            damage(measures, model, made),
            concentration(measures, model),
            feed_forward(measures, model),
            beyond_tuning(measures, model),
            beyond_interpolation(measures, model),
            beyond_lora(measures, model),
            first_layers(measures, model),
        ]
    return found
