"""A tuned model beside its base: knowledge that was lost, told apart from a form that was lost or never learned.

A base model that never saw the trained form answers badly in it whatever it knows. So it is asked in other forms too;
what it answers after solved examples is what it knows. Works on answer tables; asks nobody.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from knowshift.measure.pairs import pair
from knowshift.measure.statistics import wilson
from knowshift.measure.strata import domains
from knowshift.measure.transitions import compare, transitions

FEW_SHOT = "few-shot"


def base_forms(form: str) -> tuple[str, ...]:
    """How the base is asked where the tuned model is asked in ``form``: in the same, and in the neutral ones."""
    return tuple(dict.fromkeys([form, "plain", FEW_SHOT]))


def against_base(
    answers: pl.DataFrame, base: Mapping[str, pl.DataFrame], form: str, *, seed: int = 0
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """What became of each fact since the base model, by the form in which the base was asked.

    Args:
        answers: the tuned model's, asked in ``form``.
        base: the base model's answers to the same facts, by form.
        form: as above.
        seed: of the intervals.

    Returns:
        As ``transitions`` returns it, for each form of the base, with a column ``form``; and the figures: ``forms``
        (for each, as ``compare`` returns them) and, if the base was shown solved examples, ``knowledge`` by domain.
        There ``known`` counts the facts the base answered after solved examples; of them the tuned model ``kept``
        some and ``lost`` the rest (``lost_share``, with Wilson's interval): ``lost_in_format`` where its wrong answer
        has the form of an answer, ``lost_out_of_format`` where it does not, so that the form may be what is
        missing. ``base_out_of_form`` of those known the base itself could not answer in ``form`` (null if it
        was not asked so).

    Raises:
        InputError: if the tables do not hold the same facts.
    """
    moved = [transitions(table, answers).with_columns(form=pl.lit(name)) for name, table in base.items()]
    figures: dict[str, Any] = {"forms": {name: compare(table, answers, seed=seed) for name, table in base.items()}}
    if FEW_SHOT in base:
        shown = base[FEW_SHOT]
        same = base.get(form)
        figures["knowledge"] = {
            domain: _knowledge(shown.filter(pl.col("domain") == domain), same, answers) for domain in domains(shown)
        }
    return pl.concat(moved), figures


def _knowledge(shown: pl.DataFrame, same: pl.DataFrame | None, answers: pl.DataFrame) -> dict[str, Any]:
    own = shown.select("id")
    now = pair(shown, answers.join(own, on="id", how="semi"), ("contains", "in_format"))
    known, lost = now["contains_before"], now["contains_before"] & ~now["contains_after"]
    count = int(known.sum())
    out_of_form = None
    if same is not None:
        then = pair(shown, same.join(own, on="id", how="semi"), ("contains",))
        out_of_form = int((known & ~then["contains_after"]).sum())
    return {
        "facts": now.height,
        "known": count,
        "kept": count - int(lost.sum()),
        "lost": int(lost.sum()),
        "lost_share": wilson(int(lost.sum()), count).to_json() if count else None,
        "lost_in_format": int((lost & now["in_format_after"]).sum()),
        "lost_out_of_format": int((lost & ~now["in_format_after"]).sum()),
        "base_out_of_form": out_of_form,
    }
