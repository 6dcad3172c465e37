"""How long each kind of cell takes on this machine: small pieces of the real steps, timed at two sizes.

Two sizes give what a cell costs before it does anything (imports apart) and what each fact or update adds. The pieces
are shorter than any cell, so batches are smaller than they will be: estimates are high rather than low.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

from knowshift import steps
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.facts.prompts import qa_prompt
from knowshift.study.plan import Plan, Training

FACTS = (4, 12)
UPDATES = (2, 6)


@dataclass(frozen=True, slots=True)
class Rate:
    """What cells of a kind cost.

    Attributes:
        fixed: seconds of a cell whatever its size.
        each: seconds of each unit: a fact asked, an update of training, a fact asked of one model of a sweep.
        between: of a sweep, seconds for putting the weights of one model in place and back.
    """

    fixed: float
    each: float
    between: float = 0.0


def calibrate(plan: Plan, model: str, some: Sequence[Fact]) -> dict[str, Rate]:
    """Rates by kind, of training by ``train METHOD``.

    Args:
        some: facts to ask, as many as ``FACTS`` says.
    """
    with tempfile.TemporaryDirectory(prefix="knowshift-calibrate-") as name, redirect_stderr(StringIO()):
        return _Bench(plan, model, some, Path(name)).rates()


class _Bench:
    def __init__(self, plan: Plan, model: str, some: Sequence[Fact], folder: Path) -> None:
        self.plan, self.model, self.folder = plan, model, folder
        self.tuned = folder
        self.files = {}
        for count in FACTS:
            self.files[count] = folder / f"{count}.jsonl"
            write_jsonl(self.files[count], (fact.to_json() for fact in some[:count]))
        pairs = [{"prompt": qa_prompt(fact.question), "completion": fact.answers[0]} for fact in some]
        self.data = folder / "train.jsonl"
        write_jsonl(self.data, (json.dumps(pair) for pair in pairs))

    def rates(self) -> dict[str, Rate]:
        """All of them; a model trained here is what the later kinds compare."""
        found = {"mastery": self._line(self._mastery, FACTS), "eval": self._line(self._eval, FACTS)}
        for training in self.plan.methods:
            found[f"train {training.label}"] = self._line(partial(self._train, training), UPDATES)
        if self.plan.drift.modes:
            found["drift"] = self._line(self._drift, FACTS)
        if self.plan.diff.enabled:
            with _timed() as taken:
                fractions = self.plan.diff.fractions
                steps.diff(
                    self.model, str(self.tuned), self.folder / "diff", region=self.plan.region, fractions=fractions
                )
            found["diff"] = Rate(taken[0], 0.0)
        if self.plan.sweep.enabled:
            found["sweep"] = self._sweep(found["eval"])
        return found

    def _line(self, work: Callable[[int, Path], object], sizes: tuple[int, int]) -> Rate:
        """The straight line through two sizes; the smaller one first once for what a process pays for once."""
        few, more = sizes
        seconds = []
        for count in (few, few, more):
            with tempfile.TemporaryDirectory(dir=self.folder) as out, _timed() as taken:
                work(count, Path(out))
            seconds += taken
        each = max(0.0, (seconds[2] - seconds[1]) / (more - few))
        return Rate(max(0.0, seconds[1] - few * each), each)

    def _mastery(self, count: int, out: Path) -> None:
        steps.mastery(self.model, str(self.files[count]), out, self.plan.mastery)

    def _eval(self, count: int, out: Path) -> None:
        steps.evaluate(self.model, str(self.files[count]), out, max_new_tokens=self.plan.eval.max_new_tokens)

    def _train(self, training: Training, updates: int, out: Path) -> None:
        from knowshift.train.methods import trains_adapter
        from knowshift.train.options import TrainOptions

        self.tuned = self.folder / f"tuned-{len(list(self.folder.glob('tuned-*')))}"
        options = TrainOptions(
            model=self.model,
            data=self.data,
            out=self.tuned,
            method=training.method,
            set=training.set,
            **self.plan.train,
        )
        merged = {"merge": trains_adapter(options.methods()), "max_steps": updates, "save_steps": 0}
        steps.train(options.model_copy(update=merged))

    def _drift(self, count: int, out: Path) -> None:
        # The paper's mode reads no more tokens than this one, and its templates need a mastery run.
        steps.drift(self.model, str(self.tuned), str(self.files[count]), out)

    def _sweep(self, asking: Rate) -> Rate:
        from knowshift.facts.sources import read_facts
        from knowshift.models import resolve
        from knowshift.study.curve import METHODS, Curve

        few = FACTS[0]
        asked = read_facts(str(self.files[few]))
        with _timed() as opening:
            curve = Curve(resolve(self.model), self.tuned, region=self.plan.region, arithmetic=self.plan.arithmetic)
        length = self.plan.eval.max_new_tokens
        with _timed() as walking:
            curve.measure(asked, {}, self.folder / "sweep", fractions=[0.2], max_new_tokens=length)
        between = walking[0] / (1 + len(METHODS)) - few * asking.each
        return Rate(opening[0], asking.each, max(0.0, between))


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Seconds the block took, once it is left."""
    taken: list[float] = []
    begun = time.monotonic()
    yield taken
    taken.append(time.monotonic() - begun)
