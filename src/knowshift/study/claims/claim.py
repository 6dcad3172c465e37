"""A claim of the paper, what a study says of it, and where that stands; many of them as tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from knowshift.study.claims.rules import Part, Verdict, together, weakest
from knowshift.study.tables.table import Table

_WORDS: dict[Verdict, str] = {
    "supported": "Supported",
    "not supported": "Not supported",
    "not resolved": "Not resolved at this sample",
}
_CLAIMS: dict[str, Any] = {
    "model": pl.String,
    "name": pl.String,
    "claim": pl.String,
    "verdict": pl.String,
    "effect": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "unit": pl.String,
    "text": pl.String,
    "why": pl.String,
    "table": pl.String,
    "rows": pl.String,
}
_PARTS: dict[str, Any] = {
    "model": pl.String,
    "name": pl.String,
    "part": pl.Int64,
    "says": pl.String,
    "verdict": pl.String,
    "effect": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "margin": pl.Float64,
    "unit": pl.String,
    "why": pl.String,
}


@dataclass(frozen=True)
class Claim:
    """What a study says of one claim.

    Attributes:
        name: short, for links.
        claim: the claim in words.
        model: the base model.
        parts: the effects it stands on; all must hold.
        table: the table that shows them.
        rows: which of its rows: column and value, or values.
        limits: what the design cannot answer.
    """

    name: str
    claim: str
    model: str
    parts: Sequence[Part]
    table: str
    rows: Mapping[str, Any] = field(default_factory=dict)
    limits: Sequence[str] = ()

    @property
    def verdict(self) -> Verdict:
        """Of all parts together."""
        return together(self.parts)

    @property
    def deciding(self) -> Part:
        """The part that decides, whose effect stands for the claim's."""
        return weakest(self.parts)

    @property
    def why(self) -> str | None:
        """What cannot be answered, and why."""
        said = [part.why for part in self.parts if part.why]
        return "; ".join(dict.fromkeys([*said, *self.limits])) or None

    @property
    def text(self) -> str:
        """Verdict and effects in plain words."""
        shown = list(dict.fromkeys(part.text for part in self.parts))
        lacking = [why for why in (self.why or "").split("; ") if why and why not in shown]
        return f"{_WORDS[self.verdict]}: " + "; ".join([*shown, *lacking]) + "."


def as_tables(claims: Sequence[Claim]) -> list[Table]:
    """The claims, a row each, and what they stand on, a row a part."""
    rows, parts = [], []
    for one in claims:
        named = {"model": one.model, "name": one.name}
        rows.append(
            {
                **named,
                "claim": one.claim,
                "verdict": one.verdict,
                **_figures(one.deciding),
                "text": one.text,
                "why": one.why,
                "table": one.table,
                "rows": json.dumps(dict(one.rows), ensure_ascii=False),
            }
        )
        parts += [
            {
                **named,
                "part": number,
                "says": part.text,
                "verdict": part.verdict,
                **_figures(part),
                "margin": part.margin,
                "why": part.why,
            }
            for number, part in enumerate(one.parts)
        ]
    notes = (
        "Effects are turned so that more speaks for the claim; intervals are 95 %, over facts and seeds.",
        "A claim of several parts is supported only where each of them is; the effect is that of the weakest part.",
        "Each verdict stands for itself: intervals are not widened for the number of claims.",
    )
    return [
        Table("claims", "Claims of the paper, and what this study says of them", _frame(rows, _CLAIMS), notes=notes),
        Table("claim_parts", "What each verdict stands on", _frame(parts, _PARTS), notes=notes),
    ]


def _figures(part: Part) -> dict[str, Any]:
    value = part.effect
    low, high = (value.low, value.high) if value else (None, None)
    return {"effect": value.value if value else None, "low": low, "high": high, "unit": part.unit}


def _frame(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=dict(schema))
