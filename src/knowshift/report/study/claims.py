"""The paper's claims and what each study says of them, side by side where there are several."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knowshift.report.study.rows import claim_id
from knowshift.report.study.source import Source
from knowshift.report.words import Interval, capital, count, listing
from knowshift.study.claims.rules import figure

VERDICTS = ("supported", "not supported", "not resolved")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one study says of a claim.

    Attributes:
        id: as the rows it rests on name it.
        subject: whose it is; empty where there is but one.
        verdict, word: as the table has it, and as it is shown.
        effect: the deciding effect with its interval, in words.
        parts: what it stands on: verdict and sentence.
        why: what cannot be answered.
        table, title: where its rows are.
    """

    id: str
    subject: str
    verdict: str
    word: str
    effect: str
    parts: list[tuple[str, str]]
    why: str
    table: str
    title: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of the paper and every study's answer."""

    name: str
    claim: str
    answers: list[Answer]


def claims(source: Source) -> list[Claim]:
    """Every claim of the tables, in their order."""
    if "claims" not in source.tables:
        return []
    parts: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    if "claim_parts" in source.tables:
        for row in source.tables["claim_parts"].frame.iter_rows(named=True):
            parts.setdefault(_told(row), []).append((row["verdict"], capital(row["says"])))
    found: dict[str, Claim] = {}
    for row in source.tables["claims"].frame.iter_rows(named=True):
        claim = found.setdefault(row["name"], Claim(row["name"], row["claim"], []))
        claim.answers.append(_answer(source, row, parts.get(_told(row), [])))
    return list(found.values())


def summary(source: Source, made: list[Claim]) -> list[str]:
    """How many claims came out which way, a sentence a subject."""
    said = []
    for subject in list(source.subjects.values()) or [""]:
        verdicts = [answer.verdict for claim in made for answer in claim.answers if answer.subject == subject]
        counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS]
        start = f"{subject}: of" if subject else "Of"
        said.append(f"{start} {count(len(verdicts), 'claim')} of the paper, {listing(counts)} at this sample.")
    return said if made else []


def _told(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row.get("study"), row["model"], row["name"]


def _answer(source: Source, row: Mapping[str, Any], parts: list[tuple[str, str]]) -> Answer:
    effect = ""
    if row["effect"] is not None:
        effect = figure(Interval(row["effect"], row["low"], row["high"]), row["unit"])
    table = source.tables.get(row["table"])
    told = {says for _, says in parts}
    why = [said for said in (row["why"] or "").split("; ") if said and capital(said) not in told]
    return Answer(
        claim_id(row["name"], source, row),
        source.subject(row.get("study"), row["model"]),
        row["verdict"],
        capital(row["verdict"]) + (" at this sample" if row["verdict"] == "not resolved" else ""),
        effect,
        parts,
        capital("; ".join(why)),
        row["table"] if table else "",
        table.title if table else "",
    )
