"""How long each kind of cell takes on this machine: small pieces of the real steps, timed at two sizes.

Two sizes give what a cell costs before it does anything (imports apart) and what each fact or update adds. A piece
grows until that shows beside the cost of beginning, within ``LIMIT``. Pieces are shorter than any cell, so batches are
smaller than they will be: estimates are high rather than low.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from knowshift import steps
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.facts.prompts import qa_prompt
from knowshift.progress import bar
from knowshift.study.plan import Plan, Training

# Facts asked in a piece, and updates of training.
FACTS = (1, 3, 9, 27)
UPDATES = (1, 3, 9)
# A piece is large enough when it takes so many times what the smallest did.
ENOUGH = 2.0
# Seconds; a larger piece is not begun if it would take longer should all of the last one's time grow with its size.
LIMIT = 30.0


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


def calibrate(plan: Plan, model: str, some: Sequence[Fact], threads: int) -> dict[str, Rate]:
    """Rates by kind, of training by ``train METHOD``; on a terminal a bar says how far this is.

    Args:
        some: facts to ask, at least one; more than the largest of ``FACTS`` are of no use.
        threads: of torch, as many as a cell will have.
    """
    import torch

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="knowshift-calibrate-") as name:
        return _Bench(plan, model, some, Path(name)).rates()


def line(work: Callable[[int], object], sizes: Sequence[int]) -> Rate:
    """The straight line through the seconds of two sizes.

    Args:
        work: does so many units. It is called first with the smallest size for what a process pays for once.
        sizes: to choose from, growing. If the second would take too long, all of the first counts as its units'.
    """
    least = size = sizes[0]
    first = taken = _seconds(work, least)
    if first <= LIMIT:
        first = taken = _seconds(work, least)
    for more in sizes[1:]:
        if taken >= ENOUGH * first or taken * more / size > LIMIT:
            break
        size, taken = more, _seconds(work, more)
    if size == least:
        return Rate(0.0, first / least)
    each = max(0.0, (taken - first) / (size - least))
    return Rate(max(0.0, first - least * each), each)


class _Bench:
    def __init__(self, plan: Plan, model: str, some: Sequence[Fact], folder: Path) -> None:
        self.plan, self.model, self.folder = plan, model, folder
        self.tuned = folder / "tuned"
        self.counts = sorted({min(count, len(some)) for count in FACTS})
        for count in self.counts:
            write_jsonl(self._facts(count), (fact.to_json() for fact in some[:count]))
        pairs = [{"prompt": qa_prompt(fact.question), "completion": fact.answers[0]} for fact in some]
        self.examples = [json.dumps(pair) for pair in pairs]

    def rates(self) -> dict[str, Rate]:
        """All of them; a model trained here is what the later kinds compare."""
        plan = self.plan
        found: dict[str, Rate] = {}
        work: list[tuple[str, Callable[[], Rate]]] = [
            ("mastery", lambda: self._line(self._mastery, self.counts)),
            ("eval", lambda: self._line(self._eval, self.counts)),
            *((f"train {one.label}", partial(self._line, partial(self._train, one), UPDATES)) for one in plan.methods),
        ]
        if plan.drift.modes:
            work.append(("drift", lambda: self._line(self._drift, self.counts)))
        if plan.diff.enabled:
            work.append(("diff", self._diff))
        if plan.sweep.enabled:
            work.append(("sweep", lambda: self._sweep(found["eval"])))
        with bar("timing small pieces", len(work)) as advance:
            for name, timed in work:
                found[name] = timed()
                advance(1)
        return found

    def _facts(self, count: int) -> Path:
        return self.folder / f"{count}.jsonl"

    def _line(self, work: Callable[[int, Path], object], sizes: Sequence[int]) -> Rate:
        def in_a_folder(count: int) -> None:
            with tempfile.TemporaryDirectory(dir=self.folder) as out:
                work(count, Path(out))

        return line(in_a_folder, sizes)

    def _mastery(self, count: int, out: Path) -> None:
        steps.mastery(self.model, str(self._facts(count)), out, self.plan.mastery)

    def _eval(self, count: int, out: Path) -> None:
        steps.evaluate(self.model, str(self._facts(count)), out, max_new_tokens=self.plan.eval.max_new_tokens)

    def _train(self, training: Training, updates: int, out: Path) -> None:
        from knowshift.train.methods import trains_adapter
        from knowshift.train.options import TrainOptions

        made, data = out / "model", out / "train.jsonl"
        options = TrainOptions(
            model=self.model, data=data, out=made, method=training.method, set=training.set, **self.plan.train
        )
        write_jsonl(data, islice(cycle(self.examples), updates * options.batch_size))
        merged = {"merge": trains_adapter(options.methods()), "max_steps": updates, "save_steps": 0}
        steps.train(options.model_copy(update=merged))
        shutil.rmtree(self.tuned, ignore_errors=True)
        made.rename(self.tuned)

    def _drift(self, count: int, out: Path) -> None:
        # The paper's mode reads no more tokens than this one, and its templates need a mastery run.
        steps.drift(self.model, str(self.tuned), str(self._facts(count)), out)

    def _diff(self) -> Rate:
        out, region, fractions = self.folder / "diff", self.plan.region, self.plan.diff.fractions
        with _timed() as taken:
            steps.diff(self.model, str(self.tuned), out, region=region, fractions=fractions)
        return Rate(taken[0], 0.0)

    def _sweep(self, asking: Rate) -> Rate:
        from knowshift.facts.sources import read_facts
        from knowshift.models import resolve
        from knowshift.study.curve import METHODS, Curve

        few = self.counts[0]
        asked = read_facts(str(self._facts(few)))
        with _timed() as opening:
            curve = Curve(resolve(self.model), self.tuned, region=self.plan.region, arithmetic=self.plan.arithmetic)
        length = self.plan.eval.max_new_tokens
        with _timed() as walking:
            curve.measure(asked, {}, self.folder / "sweep", fractions=[0.2], max_new_tokens=length)
        between = walking[0] / (1 + len(METHODS)) - few * asking.each
        return Rate(opening[0], asking.each, max(0.0, between))


def _seconds(work: Callable[[int], object], size: int) -> float:
    with _timed() as taken:
        work(size)
    return taken[0]


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Seconds the block took, once it is left."""
    taken: list[float] = []
    begun = time.monotonic()
    yield taken
    taken.append(time.monotonic() - begun)
