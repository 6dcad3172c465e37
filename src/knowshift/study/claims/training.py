"""The paper's claims of what to train on: size, mastery level, and how far the tokens move (sections 3 and 4).

Accuracy is the unweighted mean over levels, mean of the domains, on test, asked in the trained form.
"""

from collections.abc import Sequence
from typing import Any

from knowshift.mastery.levels import LEVELS, spelled
from knowshift.study.claims.claim import Claim
from knowshift.study.claims.contrasts import ABOUT, Grid, contrast, grid, plain, trained
from knowshift.study.claims.rules import Part, correlation, of_seeds
from knowshift.study.measures import KL, Measures
from knowshift.study.panel import Panel
from knowshift.study.tables.drift import SHOWN_DOMAIN, SHOWN_LEVEL, against_accuracy, drift
from knowshift.study.tables.table import Table

LOW, MIDDLE, HIGH = LEVELS[0], LEVELS[2], LEVELS[-1]


def size(measures: Measures, model: str) -> Claim:
    """More data is not better: accuracy falls from about 240 facts to the largest set.

    Supported where the mean over levels of that difference is below 0; a level without both sizes is left out and
    named.
    """
    panel, own = _asked(measures, model)
    levels, limits = _levels(
        own, lambda level: own.about(level) and own.largest(level), f"about {ABOUT} and more facts"
    )
    mean, lacking = contrast(
        panel,
        "contains",
        [(own.by[level, own.largest(level) or ""], trained(panel)) for level in levels] if panel else [],
        [(own.by[level, own.about(level) or ""], trained(panel)) for level in levels] if panel else [],
    )
    says = f"training on more than about {ABOUT} facts lowers accuracy by {{}} (levels {_spelled(levels)})"
    part = of_seeds(says, mean, turned=True, why=lacking if levels else limits[0] if limits else None)
    return _claim(
        "size", f"Training on more than about {ABOUT} facts lowers accuracy.", model, [part], "size", limits, lacking
    )


def low_mastery(measures: Measures, model: str) -> Claim:
    """Low mastery harms most: at one size, models trained on level 0 are less accurate than those of every other level.

    Supported where each of these differences is above 0 by its own interval.
    """
    panel, own = _asked(measures, model)
    claim = "Training on facts the base model never gets right harms accuracy most."
    others = [level for level in own.levels if level != LOW]
    if LOW not in own.levels or not others:
        return _unanswered(
            "low-mastery", claim, model, "accuracy", own.why(LOW) if others else "only one level was trained on"
        )
    levels, size_, limits = _at_one_size(own, [LOW], others)
    parts, gaps = [], []
    for level in levels:
        mean, lacking = _level_difference(panel, own, level, LOW, size_)
        says = f"level {level} against level {LOW} at {own.by[LOW, size_].labels['size']} facts: {{}}"
        parts.append(of_seeds(says, mean, why=lacking))
        gaps.append(lacking)
    rows = {"asked_size": size_, "level": [LOW, *levels]}
    return _claim("low-mastery", claim, model, parts, "accuracy", [*limits, *_known(gaps)], None, rows)


def middle(measures: Measures, model: str) -> Claim:
    """Middle levels balance best: at one size, level 2 is more accurate than level 0 and than level 4."""
    panel, own = _asked(measures, model)
    claim = "Facts the base model half knows make the best training set."
    lacking = [level for level in (LOW, MIDDLE, HIGH) if level not in own.levels]
    size_ = None if lacking else own.shared([LOW, MIDDLE, HIGH])
    if size_ is None:
        why = (
            "; ".join(own.why(level) for level in lacking) or f"no size is shared by levels {LOW}, {MIDDLE} and {HIGH}"
        )
        return _unanswered("middle", claim, model, "accuracy", why)
    parts, gaps = [], []
    for level in (LOW, HIGH):
        mean, said = _level_difference(panel, own, MIDDLE, level, size_)
        says = f"level {MIDDLE} against level {level} at {own.by[MIDDLE, size_].labels['size']} facts: {{}}"
        parts.append(of_seeds(says, mean, why=said))
        gaps.append(said)
    rows = {"asked_size": size_, "level": [LOW, MIDDLE, HIGH]}
    return _claim("middle", claim, model, parts, "accuracy", _known(gaps), None, rows)


def divergence(measures: Measures, model: str) -> Claim:
    """KL falls to about 240 facts, then rises: smallest size above it, largest size above it, mean over levels."""
    claim = f"KL to the base model falls up to about {ABOUT} facts and rises after."
    found = _moved(measures, model)
    if found is None:
        return _unanswered("kl-size", claim, model, "drift", "no drift was measured")
    mode, panel, own = found
    shown = SHOWN_LEVEL if SHOWN_LEVEL in panel.levels(SHOWN_DOMAIN) else None
    parts: list[Part] = []
    limits: list[str] = []
    for pick, words in ((own.smallest, "fewer"), (own.largest, "more")):
        levels, left = _levels(
            own, lambda level, pick=pick: own.about(level) and pick(level), f"about {ABOUT} and {words} facts"
        )
        mean, lacking = contrast(
            panel,
            KL,
            [(own.by[level, pick(level) or ""], trained(panel)) for level in levels],
            [(own.by[level, own.about(level) or ""], trained(panel)) for level in levels],
            domain=SHOWN_DOMAIN,
            level=shown,
        )
        says = f"KL at {words} than about {ABOUT} facts less that at about {ABOUT}: {{}} (levels {_spelled(levels)})"
        parts.append(of_seeds(says, mean, unit="nats", why=lacking if levels else next(iter(left), None)))
        limits += [*left, *([lacking] if lacking else [])]
    about = f"in-domain facts of level {shown}" if shown is not None else "in-domain facts, mean over levels"
    rows = {"mode": mode, "domain": SHOWN_DOMAIN, "test_level": shown}
    return _claim("kl-size", claim, model, parts, "drift", [*limits, f"measured in mode {mode} on {about}"], None, rows)


def damage(measures: Measures, model: str, tables: Sequence[Table] | None = None) -> Claim:
    """The KL rises with the damage: over models, the larger the KL, the lower the accuracy.

    Models (level and size, each the mean over its seeds) are what is counted: seeds of one model are no new models.
    """
    from knowshift.study.tables.accuracy import accuracy

    claim = "Where KL to the base model is larger, accuracy is lower."
    found = _moved(measures, model)
    if found is None:
        return _unanswered("kl-damage", claim, model, "drift_accuracy", "no drift was measured")
    moved, asked = tables or (drift(measures), accuracy(measures))
    table = against_accuracy(moved, asked).frame.filter(model=model, mode=found[0], method=plain(measures, model))
    known = table.drop_nulls(["kl", "accuracy"])
    says = f"rank correlation of KL and accuracy lost over {known.height} models: {{}}"
    part = correlation(says, known["kl"].to_numpy(), known["accuracy"].to_numpy(), turned=True)
    left = table.height - known.height
    limits = [f"{left} of {table.height} models are missing"] if left else []
    return _claim("kl-damage", claim, model, [part], "drift_accuracy", limits, None, {"mode": found[0]})


def _asked(measures: Measures, model: str) -> tuple[Panel | None, Grid]:
    own = grid(measures, "eval", model, plain(measures, model) or "", split="test", form="trained")
    return measures.answers.get((model, "test")), own


def _moved(measures: Measures, model: str) -> tuple[str, Panel, Grid] | None:
    """The paper's drift if it was measured, else the teacher's."""
    for mode in ("paper", "teacher"):
        if panel := measures.drift.get((model, mode)):
            return mode, panel, grid(measures, "drift", model, plain(measures, model) or "", mode=mode)
    return None


def _level_difference(panel: Panel | None, own: Grid, first: int, second: int, size_: str) -> Any:
    if panel is None:
        return None, "nothing measured"
    where = trained(panel)
    return contrast(panel, "contains", [(own.by[first, size_], where)], [(own.by[second, size_], where)])


def _levels(own: Grid, has: Any, what: str) -> tuple[list[int], list[str]]:
    """Levels that can be compared, and word of the others."""
    inside = [level for level in own.levels if has(level)]
    outside = [level for level in LEVELS if level not in inside and (level in own.levels or (level, "") in own.lacking)]
    gone = sorted({level for level, _ in own.lacking} - set(own.levels))
    said = [f"level {level} has no models of {what}" for level in outside]
    return inside, said + [own.why(level) for level in gone]


def _at_one_size(own: Grid, needed: list[int], others: list[int]) -> tuple[list[int], str, list[str]]:
    """The largest size that most levels share with the needed ones, these levels, and word of the others."""
    best: tuple[int, int, str] = (0, 0, "")
    for asked, size_ in own.sizes(needed[0]).items():
        sharing = sum(asked in own.sizes(level) for level in others)
        best = max(best, (sharing, size_, asked))
    inside = [level for level in others if best[2] in own.sizes(level)]
    gone = sorted({level for level, _ in own.lacking} - set(own.levels))
    limits = [f"level {level} has no models of size {best[2]}" for level in others if level not in inside]
    return inside, best[2], limits + [own.why(level) for level in gone]


def _claim(
    name: str,
    claim: str,
    model: str,
    parts: Sequence[Part],
    table: str,
    limits: Sequence[str],
    lacking: str | None,
    rows: dict[str, Any] | None = None,
) -> Claim:
    said = [*limits, *([lacking] if lacking else [])]
    return Claim(name, claim, model, parts, table, {"model": model, **(rows or {})}, said)


def _unanswered(name: str, claim: str, model: str, table: str, why: str) -> Claim:
    return Claim(name, claim, model, [Part("", None, why=why)], table, {"model": model})


def _known(said: Sequence[str | None]) -> list[str]:
    return [one for one in said if one]


def _spelled(levels: Sequence[int]) -> str:
    return spelled(tuple(levels)) if levels else "none"
