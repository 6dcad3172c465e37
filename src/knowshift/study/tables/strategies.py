"""Ways to a model that knows more, side by side on test (paper, table 7): each at the set and size that did best on
validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from knowshift.study.measures import Measures
from knowshift.study.panel import BOTH, Panel
from knowshift.study.tables.table import Config, Places, Table, configs, figures, frame, means

_TOLD: dict[str, Any] = {
    "strategy": pl.String,
    "domain": pl.String,
    "facts": pl.Int64,
    "validation": pl.Float64,
    "measure": pl.String,
}
_MEASURES = ("contains", "in_format")
_Row = tuple[str, Config, list[int] | None, float | None]


def strategies(measures: Measures) -> Table:
    """Base and instruct model, every training method on one level and on a mix, restoration and its controls.

    ``validation``: the figure chosen by, the share of validation facts answered, mean of the domains and seeds. Of
    restoration one configuration is chosen, by its own figure, and its controls are of the same.
    """
    rows: list[dict[str, Any]] = []
    for model in measures.models:
        test, validation = (measures.answers.get((model, split)) for split in ("test", "validation"))
        found = [*_untrained(measures, model, test), *_trained(measures, model, test, validation)]
        found += _restored(measures, model, test, validation)
        for domain in [*test.domains, BOTH] if test else [None]:
            for measure in _MEASURES:
                told = {"domain": domain, "measure": measure, "facts": test.count(domain) if test and domain else None}
                asked = [
                    (one, {**told, "strategy": name, "validation": score}, at, None) for name, one, at, score in found
                ]
                if test and domain:
                    rows += means(test, asked, measure, domain)
                else:
                    rows += [{**one.labels, **about, **figures(one, None)} for one, about, _, _ in asked]
    return Table(
        "strategies",
        "Strategies on test, each at the set and size that did best on validation",
        frame(rows, _TOLD),
        across="domain",
        beside=("facts",),
        notes=(
            "Nothing here was chosen on test: `validation` is the figure each row was chosen by.",
            "one level: the paper's divided sets; mixed: sets of several levels.",
        ),
    )


def score(panel: Panel, places: Sequence[int]) -> float:
    """The figure to choose by: share of all facts answered, mean of the domains and of the models."""
    domains = panel.facts["domain"].to_numpy()
    hits = panel.values["contains"][:, list(places)]
    return float(np.mean([hits[domains == domain].mean() for domain in panel.domains]))


def _untrained(measures: Measures, model: str, test: Panel | None) -> list[_Row]:
    found: list[_Row] = []
    for role in ("base", "instruct"):
        for one in configs(measures.index, "eval", lacking=False, model=model, split="test", role=role):
            at = Places(test).of(one.done) if test else None
            found.append((f"{role}, asked {one.labels['form']}", one, at, None))
    return found


def _trained(measures: Measures, model: str, test: Panel | None, validation: Panel | None) -> list[_Row]:
    """The best configuration of each method, on one level and on a mix."""
    asked = configs(measures.index, "eval", lacking=False, model=model, split="test", role="tuned", form="trained")
    before = configs(
        measures.index, "eval", lacking=False, model=model, split="validation", role="tuned", form="trained"
    )
    scored = {_told(one): _score(validation, one) for one in before}
    groups: dict[str, list[Config]] = {}
    for one in asked:
        kind = "one level" if one.labels["mix"] is None else "mixed"
        groups.setdefault(f"{one.labels['method']}, {kind}", []).append(one)
    found: list[_Row] = []
    for name, group in groups.items():
        known = [one for one in group if scored.get(_told(one)) is not None]
        if not known:
            found.append((name, Config({**group[0].labels, **_UNCHOSEN}, lacking="no validation answers"), None, None))
            continue
        best = max(known, key=lambda one: scored[_told(one)] or 0.0)
        found.append((name, best, Places(test).of(best.done) if test else None, scored[_told(best)]))
    return found


_UNCHOSEN = {"level": None, "mix": None, "asked_size": None, "size": None}


def _restored(measures: Measures, model: str, test: Panel | None, validation: Panel | None) -> list[_Row]:
    """The best restored configuration and its controls."""
    asked = configs(measures.index, "confirm", lacking=False, model=model)
    if not asked or test is None or validation is None:
        return [
            ("restoration", Config({**one.labels, **_UNCHOSEN}, lacking="not done"), None, None) for one in asked[:1]
        ]
    chosen = test.models.filter(pl.col("restoration").is_not_null(), kind="confirm")
    sweeps = {_told(sweep): sweep for sweep in configs(measures.index, "sweep", lacking=False, model=model)}
    places = Places(validation)
    scored = [(_chosen_score(sweeps, validation, places, chosen, one), number) for number, one in enumerate(asked)]
    known = [(value, -number) for value, number in scored if value is not None]
    if not known:
        return [("restoration", Config({**asked[0].labels, **_UNCHOSEN}, lacking="not done"), None, None)]
    value, number = max(known)
    best = asked[-number]
    own = chosen.filter(pl.col("key").is_in(best.done))
    names = [("restoration", "relative"), *((name, name) for name in own["restoration"].unique(maintain_order=True))]
    found: list[_Row] = []
    for title, name in names:
        if title != "relative":
            made = dict(own.filter(restoration=name).select("key", "place").iter_rows())
            at = [made[key] for key in best.done if key in made]
            label = title if title == "restoration" else f"control: {title}"
            found.append((label, best, at or None, value if title == "restoration" else None))
    return found


def _chosen_score(
    sweeps: Mapping[tuple[Any, ...], Config], validation: Panel, places: Places, chosen: pl.DataFrame, one: Config
) -> float | None:
    """Mean over seeds of the validation figure of what each seed's sweep chose."""
    sweep = sweeps.get(_told(one))
    fractions = dict(chosen.filter(restoration="relative").select("key", "fraction").iter_rows())
    found = []
    for seed, key in one.seeds.items():
        swept = sweep.seeds.get(seed) if sweep else None
        at = places.of([swept], "relative", None, fractions[key]) if swept and key in fractions else None
        if at:
            found.append(score(validation, at))
    return float(np.mean(found)) if found else None


def _score(validation: Panel | None, one: Config) -> float | None:
    at = Places(validation).of(one.done) if validation else None
    return score(validation, at) if validation and at else None


def _told(one: Config) -> tuple[Any, ...]:
    return tuple(one.labels[name] for name in ("method", "level", "mix", "asked_size", "size"))
