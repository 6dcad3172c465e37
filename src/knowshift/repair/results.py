"""The files of a repair: what was measured, what was said, the verdict, and the model if test supports it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowshift.facts.fact import Fact
from knowshift.files import write_json, write_parquet
from knowshift.measure.token_drift import drift
from knowshift.repair import adapter, outcome
from knowshift.repair.bench import Bench
from knowshift.repair.race import BASE, TUNED
from knowshift.repair.search import Found
from knowshift.repair.space import Candidate, Interpolation
from knowshift.weights.card import card
from knowshift.weights.merge.coefficients import Coefficients

# Facts on which drift is measured.
DRIFT = 100


@dataclass(frozen=True)
class Models:
    """The two models.

    Attributes:
        base, tuned: checkpoint folders.
        names: how the user calls them.
        adapter: the PEFT folder that ``tuned`` was merged from.
    """

    base: Path
    tuned: Path
    names: tuple[str, str]
    adapter: Path | None = None


@dataclass(frozen=True)
class Results:
    """What a search found, ready to be written."""

    models: Models
    bench: Bench
    candidates: Mapping[str, Candidate]
    found: Found

    def write(self, out: Path, *, metric: str, minutes: Callable[[], float], command: Sequence[str]) -> dict[str, Any]:
        """Write ``frontier.parquet``, ``examples.parquet``, ``metrics.json``, and where the verdict is ``repaired`` the
        model with ``places.parquet``, and the adapter where the repair is one of an adapter.

        Args:
            metric: of the task.
            minutes: since the beginning.
            command: that makes this again.

        Returns:
            ``metrics.json``.
        """
        verdict, bench = self.found.verdict, self.bench
        measured = bench.measured()
        write_parquet(out / "frontier.parquet", outcome.frontier(measured, self.candidates, verdict.chosen))
        roles = {"base": BASE, "tuned": TUNED, "repaired": verdict.chosen}
        said = {role: bench.table(name, "test") for role, name in roles.items()}
        facts, items = bench.objective.facts["test"], bench.objective.items["test"]
        write_parquet(out / "examples.parquet", outcome.examples(said, facts, items))
        race = sum(
            table.height for (name, part), table in measured.items() if part == "search" and name in self.candidates
        )
        metrics = {
            **verdict.to_json(),
            "models": dict(zip(("base", "tuned"), self.models.names, strict=True)),
            "task_metric": metric,
            "scores": {role: outcome.means(table) for role, table in said.items()},
            "search": {
                "candidates": len(self.candidates),
                "finalists": list(self.found.finalists),
                "rounds": [
                    dict(zip(("candidates", "facts", "items"), each, strict=True)) for each in self.found.rounds
                ],
                "answers": race,
                "answers_without_racing": self.found.unraced,
            },
            "model": None,
            "adapter": None,
            "drift": None,
        }
        if verdict.outcome == "repaired":
            metrics |= self._write_model(out, facts, command)
        metrics["minutes"] = minutes()
        write_json(out / "metrics.json", metrics)
        return metrics

    def _write_model(self, out: Path, facts: Sequence[Fact], command: Sequence[str]) -> dict[str, Any]:
        """Write the chosen model; what ``metrics.json`` says of it."""
        chosen, models = self.candidates[self.found.verdict.chosen], self.models
        text = self._card(chosen, command)
        written = chosen.write(models.base, models.tuned, out / "model", text)
        write_parquet(out / "places.parquet", outcome.places(written))
        kept: Mapping[str, float] | float | None = None
        if isinstance(chosen.how, Coefficients):
            kept = chosen.how.values
        elif isinstance(chosen.how, Interpolation):
            kept = chosen.how.alpha
        scaled = None
        if models.adapter is not None and kept is not None and adapter.why_not(models.adapter) is None:
            scaled = adapter.write_scaled(models.adapter, kept, out / "adapter", text).name
        folders = {"tuned": models.tuned, "repaired": out / "model"}
        return {
            "model": "model",
            "adapter": scaled,
            "drift": {role: drift(models.base, folder, facts[:DRIFT])[1] for role, folder in folders.items()},
        }

    def _card(self, chosen: Candidate, command: Sequence[str]) -> str:
        """The model card of the repaired model."""
        verdict = self.found.verdict
        settings = ", ".join(f"{name} {value}" for name, value in chosen.settings.items())
        task = f"{verdict.task.value:+.4f} ({verdict.task.low:+.4f} to {verdict.task.high:+.4f})"
        return card(
            "A fine-tuned model repaired",
            f"The tuned model, of whose update a part was taken back. {verdict.sentence}",
            base=self.models.names[0],
            tuned=self.models.names[1],
            command=command,
            facts={
                "method": f"{chosen.method} ({settings})" if settings else chosen.method,
                "facts of test that the base model knows": verdict.facts,
                "of these lost by the tuned model": verdict.lost,
                "of these returned": verdict.returned,
                "task prompts of test": verdict.items,
                "change of the task's mean score": task,
            },
        )
