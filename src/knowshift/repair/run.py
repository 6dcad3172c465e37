"""A repair from two checkpoints to the answer: joins what the rest of the room does.

One model is in memory at a time, and beside it, while something is learned, its gradient. Files of what was learned
and measured lie in ``measured/`` of the run folder, under a name that tells all they depend on.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from knowshift import __version__
from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.files import digest_of, make_folder
from knowshift.generate.engine import Engine
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.models import digest, load_model, load_tokenizer, same_tokenizer
from knowshift.models.cache import cache_folder
from knowshift.repair import benefit, coefficients
from knowshift.repair.bench import Bench
from knowshift.repair.knowledge import known_facts
from knowshift.repair.lessons import Lessons
from knowshift.repair.objective import Objective
from knowshift.repair.race import BASE, TUNED
from knowshift.repair.results import Models, Results
from knowshift.repair.search import MOST, Clock, Found, Search
from knowshift.repair.space import REGION, Candidate, known
from knowshift.repair.split import check_enough, drawn, split
from knowshift.repair.task import Item
from knowshift.settings import Settings
from knowshift.weights.checkpoint import Checkpoint
from knowshift.weights.output import check_targets
from knowshift.weights.pairing import pair
from knowshift.weights.sweep import Sweep
from knowshift.weights.walk import Tile, walk

# Facts of a set that the base is asked; of a larger set a sample.
ASKED = 2400
# Longest answer to a fact, in tokens.
TOKENS = 16
# Answers that are decoded together, at most: their keys and values are memory beside the model.
ROWS = 128
# Of the time until validation, for learning, then of what is left for measuring benefit; the rest is the race's.
LEARNING, MEASURING = 0.35, 0.2


class RepairOptions(Settings):
    """What is to be repaired, and how.

    Attributes:
        knowledge, task: where facts and prompts come from; for messages.
        max_task_drop: of the task's mean score; None: one standard error of the tuned model's.
        budget: minutes in all; the search makes do with what the rest leaves it.
    """

    knowledge: str
    task: Path
    task_metric: Literal["exact", "contains", "log-likelihood"] = "exact"
    max_task_drop: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    budget: float = Field(default=10, gt=0, allow_inf_nan=False)
    seed: int = 0


class Repair:
    """One repair.

    Args:
        models: the pair.
        facts: of which the base knows some.
        items: of the task.
        out: the run folder.
        options: see there.

    Raises:
        InputError: for models that do not belong together or are the same, too small a task, or a folder that is not
            ours to write.
    """

    def __init__(
        self, models: Models, facts: Sequence[Fact], items: Sequence[Item], out: Path, options: RepairOptions
    ) -> None:
        self.models, self.items, self.out, self.options = models, items, out, options
        self.clock = Clock(options.budget)
        self.facts = drawn(facts, lambda fact: fact.id, options.seed)[:ASKED]
        check_enough(split(items, lambda item: item.asked), str(options.task), "prompts")
        same_tokenizer(models.base, models.tuned)
        left, right = Checkpoint.open(models.base), Checkpoint.open(models.tuned)
        check_targets(right, left, [out / "model"])
        pairs, self.notes = pair(left, right, REGION)
        if not any(differs for _, differs in walk(pairs, _differs, "comparing")):
            raise InputError(
                f"{models.names[0]} and {models.names[1]} hold the same weights: nothing was lost, there is nothing to "
                "repair"
            )
        self._engines: dict[str, Engine] = {}
        self._candidates: dict[str, Candidate] = {}
        self._sweep: Sweep | None = None

    def run(self, command: Sequence[str]) -> dict[str, Any]:
        """Search, confirm and write; the figures of ``metrics.json``.

        Args:
            command: that makes this again, for the model card.

        Raises:
            InputError: if the base knows too little, the two seem swapped, or the tuned one cannot do the task; then
                nothing is left in the folder.
        """
        seed = self.options.seed
        base = self._load(BASE, self.models.base)
        knowledge = known_facts(
            base,
            self.facts,
            self.options.knowledge,
            model=digest(self.models.base),
            cache=make_folder(cache_folder() / "repair"),
            seed=seed,
            max_new_tokens=TOKENS,
        )
        source, metric = str(self.options.task), self.options.task_metric
        objective = Objective(knowledge, self.items, source, metric=metric, seed=seed, max_new_tokens=TOKENS)
        bench = Bench(objective, MOST, self.out / "measured" / self._key(objective), self._holding)
        search = Search(bench, self.clock, drop=self.options.max_task_drop, seed=seed)
        search.measure(BASE)
        del base
        engine = self._load(TUNED, self.models.tuned)
        search.measure(TUNED)
        try:
            lost = search.check()
        except InputError:  # a mistake, of which nothing may stay
            shutil.rmtree(bench.folder.parent)
            if not any(self.out.iterdir()):
                self.out.rmdir()
            raise
        found = None if lost else search.nothing_lost()
        if found is None:
            found = self._searched(search, engine)
        self._engines, self._sweep = {}, None
        del engine
        return Results(self.models, bench, self._candidates, found).write(
            self.out, metric=metric, minutes=lambda: self.clock.spent / 60, command=command
        )

    def _searched(self, search: Search, engine: TransformersEngine) -> Found:
        bench, seed = search.bench, self.options.seed
        self._sweep = Sweep(engine.model, self.models.base, self.models.tuned, region=REGION)
        lessons = Lessons(engine.model, engine.tokenizer, bench.objective)
        learned = coefficients.candidates(self._sweep, lessons, bench.folder, seed, LEARNING * search.left)
        masks = benefit.candidates(self._sweep, lessons, bench.folder, seed, MEASURING * search.left)
        self._candidates = {each.name: each for each in (*learned, *masks, *known(seed))}
        return search.run(list(self._candidates))

    def _load(self, role: str, folder: Path) -> TransformersEngine:
        """The engine of base or tuned model, in place of the one before."""
        self._engines.clear()
        engine = TransformersEngine(load_model(folder), load_tokenizer(folder))
        engine.rows = min(engine.rows, ROWS)
        self._engines[role] = engine
        return engine

    @contextmanager
    def _holding(self, name: str) -> Iterator[Engine]:
        """The engine of a model by name, as long as the block lasts."""
        if self._sweep is None or name in self._engines:
            yield self._engines[name]
        else:
            with self._candidates[name].within(self._sweep):
                yield self._engines[TUNED]

    def _key(self, objective: Objective) -> str:
        """What measurements and what is learned depend on."""
        models = [digest(self.models.base), digest(self.models.tuned)]
        asked = [[fact.to_json() for fact in facts] for facts in objective.facts.values()]
        done = [[(item.id, item.completions) for item in items] for items in objective.items.values()]
        shots = [fact.to_json() for fact in objective.shots]
        return digest_of([__version__, models, shots, asked, done, objective.metric, self.options.seed])


def _differs(tile: Tile) -> bool:
    return bool((tile.pair.base_bits(tile.start, tile.stop) != tile.pair.tuned_bits(tile.start, tile.stop)).any())
