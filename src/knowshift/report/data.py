"""A run folder as the report reads it: tables checked as they are opened, what is missing is None.

Knows where each file lies and which columns it must have; computes no figure.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from knowshift.errors import InputError
from knowshift.facts.fact import read_rows
from knowshift.files import read_json, read_parquet
from knowshift.report.words import Interval, count, fraction

# The base model asked after a few solved examples: what it knows without knowing the trained form.
FEW_SHOT = "base-few-shot"

ANSWERS = ("id", "domain", "level", "contains", "strict", "in_format")
CHANGES = ("id", "topic", "question", "answers", "domain", "level", "before", "after", "change")
MASTERY = ("id", "topic", "question", "answers", "split", "domain", "hits", "trials", "level")
DRIFT = ("id", "domain", "level", "kl_tuned_base")
CONCENTRATION = ("fraction", "share", "null_share", "energy_share")
MODULES = ("layer", "module", "parameters")
CURVE = ("method", "fraction", "removed_norm_share", "accuracy", "low", "high", "in_format")


@dataclass(frozen=True, slots=True)
class Tuned:
    """One fine-tune of the run.

    Attributes:
        name: its folder's name, such as ``low``.
        label: short, for legends.
        title: what it was trained on, in words.
        size: facts in the training set, if known.
        level: their mastery level, if known.
        method: the training method.
        data: the training set, relative to the run folder.
    """

    name: str
    label: str
    title: str
    size: int | None
    level: int | None
    method: str
    data: str


@dataclass(frozen=True)
class Run:
    """A run folder. ``metrics.json`` is required, every other file is optional."""

    folder: Path
    metrics: dict[str, Any] = field(repr=False)
    record: dict[str, Any] = field(repr=False)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open a run folder.

        Raises:
            InputError: if it has no ``metrics.json``, or a JSON file is malformed.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        path = folder / "run.json"
        metrics = read_json(folder / "metrics.json")
        record = read_json(path) if path.exists() else {}
        for name, value in (("metrics.json", metrics), ("run.json", record)):
            if not isinstance(value, dict):
                raise InputError(f"{folder / name}: a JSON object is expected")
        return cls(folder, metrics, record)

    @property
    def base(self) -> str:
        """The base model's name as the user gave it."""
        return str(self.metrics.get("model") or self.settings.get("model") or "the base model")

    @property
    def title(self) -> str:
        """The base model's name as a reader wants it: of a folder, only its own name."""
        path = Path(self.base)
        return path.name if path.is_absolute() or self.base.startswith(".") else self.base

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.record.get("seed") or self.settings.get("seed") or 0)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every option as resolved: the run record's, over those the metrics state."""
        return {**self.metrics.get("settings", {}), **self.record.get("options", {})}

    @cached_property
    def tuned(self) -> tuple[Tuned, ...]:
        """The fine-tunes, the first being the one that was repaired."""
        entries = self.metrics.get("models", {})
        names = sorted(entries, key=lambda name: name != "low")
        found = [_tuned(name, entries[name]) for name in names]
        if len({model.label for model in found}) < len(found):
            found = [replace(model, label=f"{model.label} ({model.name})") for model in found]
        return tuple(found)

    @cached_property
    def untouched(self) -> bool:
        """Whether the training sets are at hand and hold no out-of-domain fact."""
        if self.mastery is None or not all((self.folder / model.data).is_file() for model in self.tuned):
            return False
        outside = set(self.mastery.filter(domain="ood")["topic"])
        return all(
            row.get("topic") not in outside for model in self.tuned for _, row in read_rows(self.folder / model.data)
        )

    @property
    def main(self) -> Tuned:
        """The fine-tune the headline speaks of.

        Raises:
            InputError: if the run has none.
        """
        if not self.tuned:
            raise InputError(f'{self.folder / "metrics.json"}: "models" names no fine-tuned model')
        return self.tuned[0]

    @property
    def fraction(self) -> float | None:
        """The fraction chosen on validation, if restoration was run."""
        value = self.metrics.get("restoration", {}).get("fraction")
        return None if value is None else float(value)

    @cached_property
    def choice(self) -> dict[str, Any]:
        """What was chosen on validation; empty if restoration was not run."""
        path = self.folder / "sweep/choice.json"
        return dict(read_json(path)) if path.exists() else {}

    @cached_property
    def mastery(self) -> pl.DataFrame | None:
        """What the base model knew, all splits."""
        return self.table("mastery/mastery.parquet", MASTERY)

    @property
    def restored(self) -> Interval | None:
        """Paired difference in test accuracy, restored less tuned."""
        return self._difference("test_difference")

    @property
    def against_interpolation(self) -> Interval | None:
        """Paired difference in test accuracy, restored less interpolated."""
        return self._difference("against_interpolation")

    @property
    def interpolated(self) -> Interval | None:
        """Paired difference in test accuracy, interpolated less tuned."""
        return self._difference("interpolation_difference")

    def _difference(self, name: str) -> Interval | None:
        entry = self.metrics.get("restoration", {}).get(name)
        return None if entry is None else Interval.of(entry)

    @property
    def reference(self) -> str:
        """The base model at its best: shown solved examples if it was, so that form is not taken for knowledge.

        The transitions of a run start from it.
        """
        return "base" if self.answers(FEW_SHOT) is None else FEW_SHOT

    def mean_drift(self, name: str) -> float | None:
        """Mean KL(tuned || base) of one fine-tune, in nats per answer token."""
        value = self.metrics.get("drift", {}).get(name, {}).get("kl_tuned_base")
        return None if value is None else float(value)

    def label(self, name: str) -> str:
        """The short name of ``base``, a fine-tune, ``restored`` or ``interpolated``."""
        known = {model.name: model.label for model in self.tuned}
        restored = "Restored" if self.fraction is None else f"Restored {fraction(self.fraction)}"
        fixed = {"base": "Base model", FEW_SHOT: "Base + examples"}
        return known.get(name) or {**fixed, "restored": restored, "interpolated": "Interpolated"}.get(name) or name

    def phrase(self, name: str) -> str:
        """The same in a sentence."""
        known = {model.name: f"the model trained on {model.title}" for model in self.tuned}
        fixed = {"base": "the base model", FEW_SHOT: "the base model shown solved examples"}
        return known.get(name) or fixed.get(name) or f"the {name} model"

    @property
    def names(self) -> list[str]:
        """Every model of the run, in the order of the story."""
        return ["base", FEW_SHOT, *(model.name for model in self.tuned), "restored", "interpolated"]

    def answers(self, name: str) -> pl.DataFrame | None:
        """The test answers of one model."""
        return self.table(f"eval/{name}/answers.parquet", ANSWERS)

    def transitions(self, name: str) -> pl.DataFrame | None:
        """What became of each test fact between the base and one model."""
        return self.table(f"transitions/{name}.parquet", CHANGES)

    def table(self, path: str, columns: tuple[str, ...]) -> pl.DataFrame | None:
        """A Parquet table of the run, or None where the run has none.

        Raises:
            InputError: if it cannot be read or lacks one of ``columns``.
        """
        file = self.folder / path
        if not file.exists():
            return None
        table = read_parquet(file, columns)
        return table if table.height else None


def _tuned(name: str, entry: dict[str, Any]) -> Tuned:
    size = None if entry.get("size") is None else int(entry["size"])
    level = None if entry.get("level") is None else int(entry["level"])
    title = str(entry.get("title") or name)
    return Tuned(
        name=name,
        label=title[:28] if size is None or level is None else f"Tuned, {count(size)} of level {level}",
        title=title,
        size=size,
        level=level,
        method=str(entry.get("method", "")),
        data=str(entry.get("set", "")),
    )
