"""``knowshift demo``: the whole chain on one model, from what it knows to what a repair gives back.

Every stage is a step of the command line with its files in the run folder; the demo adds the choice of sets,
the restoration curve on validation, its confirmation on test, and the headline figures. The settings are
reduced so that two processor cores finish in minutes; every step's own default is the paper's value.
"""

from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from knowshift import __version__, steps
from knowshift.errors import InputError
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.facts.sources import read_facts
from knowshift.facts.templates import FORMS
from knowshift.files import check_writable, digest_of, make_folder, read_json, write_json, write_parquet
from knowshift.mastery.score import MasteryOptions
from knowshift.mastery.select import level_counts, read_mastery
from knowshift.measure.accuracy import summarise
from knowshift.measure.transitions import transitions
from knowshift.models import digest, resolve
from knowshift.runs import record
from knowshift.settings import Settings
from knowshift.study.curve import Curve, choose
from knowshift.study.headlines import headline_figures
from knowshift.study.sample import balanced
from knowshift.study.stages import Stages
from knowshift.train.options import TrainOptions

FRACTIONS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.4, 0.6)
LOW, MIDDLE = 0, 2


class DemoOptions(Settings):
    """The demo's settings; the report states them beside the paper's."""

    model: str = "smollm2"
    facts: str = "world"
    method: str = "sft"
    seed: int = 0
    templates: int = Field(default=6, ge=1, le=FORMS, description="cloze templates (paper: 21)")
    samples: int = Field(default=4, ge=1, description="completions for each template (paper: 10)")
    temperature: float = Field(default=0.7, gt=0, allow_inf_nan=False)
    mastery_new_tokens: int = Field(default=8, ge=1, description="longest sampled completion (paper: 32)")
    answer_new_tokens: int = Field(default=12, ge=1, description="longest greedy answer (paper: 16)")
    train_facts: int = Field(default=800, ge=1, description="in-domain train facts scored")
    validation_facts: int = Field(default=125, ge=1, description="validation facts of each domain")
    test_facts: int = Field(default=250, ge=1, description="test facts of each domain")
    low_size: int = Field(default=360, ge=1, description="size of the large low-mastery set")
    middle_size: int = Field(default=60, ge=1, description="size of the small middle-mastery set")
    learning_rate: float = Field(
        default=2e-4, gt=0, allow_inf_nan=False, description="for a model this small (paper: 1e-5, for 7B and more)"
    )
    batch_size: int = Field(default=8, ge=1)
    region: str = "blocks"
    arithmetic: Literal["float32", "bfloat16"] = "float32"
    fractions: tuple[float, ...] = FRACTIONS


def run(out: Path, options: DemoOptions) -> Path:
    """Run the chain in ``out`` and return the path of ``report.html``.

    A stage that was finished under the same options is passed over, so a killed demo goes on where it was.
    """
    check_writable(out)
    facts = digest_of([fact.to_json() for fact in read_facts(options.facts)])
    base = digest(resolve(options.model))
    inputs = {"options": options.model_dump(mode="json"), "model": base, "facts": facts, "version": __version__}
    with record(out, "demo", options.model_dump(mode="json"), seed=options.seed, models={"base": base}):
        Demo(out, options).run(Stages(out / "stages", inputs))
    from knowshift.report import build

    return build(out)


class Demo:
    """The stages of the chain, each reading what the ones before wrote."""

    def __init__(self, out: Path, options: DemoOptions) -> None:
        self.out = out
        self.options = options
        self.facts = out / "facts.jsonl"
        self.mastery = out / "mastery"

    def run(self, stages: Stages) -> None:
        """All stages in order."""
        stages.run("facts", "Choosing the facts", self.choose_facts)
        stages.run("mastery", "What does the base model know?", self.score)
        stages.run("sets", "Choosing what to train on", self.choose_sets)
        for name in ("low", "middle"):
            size = read_lines(self.out / "sets" / f"{name}.jsonl")
            title = f"Fine-tuning on {size} facts of level {LOW if name == 'low' else MIDDLE}"
            stages.run(f"train-{name}", title, lambda name=name: self.train(name))  # type: ignore[misc]
        stages.run("eval", "Asking base and tuned models", self.evaluate)
        stages.run("drift", "How far did the tokens move?", self.drift)
        stages.run("diff", "How far did the weights move?", self.diff)
        stages.run("sweep", "Restoring, beside controls, on validation", self.sweep)
        stages.run("confirm", "Confirming the choice on test", self.confirm)
        stages.run("metrics", "Headline figures", self.headlines)

    def choose_facts(self) -> None:
        """Train facts of the in-domain topics; validation and test facts of both domains."""
        everything = read_facts(self.options.facts)
        wanted = [
            ("train", "id", self.options.train_facts),
            *(("validation", domain, self.options.validation_facts) for domain in ("id", "ood")),
            *(("test", domain, self.options.test_facts) for domain in ("id", "ood")),
        ]
        chosen: list[Fact] = []
        for split, domain, count in wanted:
            pool = [fact for fact in everything if fact.split == split and fact.domain == domain]
            if not pool:
                raise InputError(f"{self.options.facts}: the demo needs facts of split {split!r} in domain {domain!r}")
            chosen += balanced(pool, count, self.options.seed, "demo")
        write_jsonl(self.facts, (fact.to_json() for fact in chosen))

    def score(self) -> None:
        """Mastery of every chosen fact by the base model."""
        settings = MasteryOptions(
            templates=self.options.templates,
            samples=self.options.samples,
            slick=False,  # the page shows no SliCK classes
            temperature=self.options.temperature,
            max_new_tokens=self.options.mastery_new_tokens,
            seed=self.options.seed,
        )
        steps.mastery(self.options.model, str(self.facts), self.mastery, settings)

    def choose_sets(self) -> None:
        """A large set of facts the base model never gets right, a small one of facts it half knows."""
        held = level_counts(read_mastery(self.mastery), "train", "id")
        for name, level, wanted in (
            ("low", LOW, self.options.low_size),
            ("middle", MIDDLE, self.options.middle_size),
        ):
            size = min(wanted, held[level])
            if size < self.options.batch_size:
                raise InputError(
                    f"level {level} holds {held[level]} train facts, too few to train on: this model and these "
                    f"facts do not suit the demo (facts by level: {held})"
                )
            file = self.out / "sets" / f"{name}.jsonl"
            steps.select_set(self.mastery, file, level=level, size=size, seed=self.options.seed)

    def train(self, name: str) -> None:
        """Fine-tune the base model on one set."""
        steps.train(
            TrainOptions(
                model=self.options.model,
                data=self.out / "sets" / f"{name}.jsonl",
                out=self.checkpoint(name),
                method=self.options.method,
                learning_rate=self.options.learning_rate,
                batch_size=self.options.batch_size,
                seed=self.options.seed,
            )
        )

    def evaluate(self) -> None:
        """Greedy answers of every model on the test facts; the base model also with solved examples."""
        asked = [("base", self.options.model, "trained"), ("base-few-shot", self.options.model, "few-shot")]
        asked += [(name, str(self.checkpoint(name)), "trained") for name in ("low", "middle")]
        for name, model, form in asked:
            steps.evaluate(
                model,
                str(self.facts),
                self.out / "eval" / name,
                mastery_run=self.mastery,
                form=form,
                max_new_tokens=self.options.answer_new_tokens,
                split="test",
                seed=self.options.seed,
            )

    def drift(self) -> None:
        """KL of both tuned models on the test facts."""
        for name in ("low", "middle"):
            steps.drift(
                self.options.model,
                str(self.checkpoint(name)),
                str(self.facts),
                self.out / "drift" / name,
                mastery_run=self.mastery,
                split="test",
                seed=self.options.seed,
            )

    def diff(self) -> None:
        """Concentration and place of both updates."""
        for name in ("low", "middle"):
            steps.diff(
                self.options.model,
                str(self.checkpoint(name)),
                self.out / "diff" / name,
                region=self.options.region,
                arithmetic=self.options.arithmetic,
                fractions=self.options.fractions,
                seed=self.options.seed,
            )

    def sweep(self) -> None:
        """The restoration curve of the `low` model on validation, and the fraction it recommends."""
        facts, levels = self._split("validation")
        curve = self._curve().measure(
            facts,
            levels,
            self.out / "sweep",
            fractions=self.options.fractions,
            max_new_tokens=self.options.answer_new_tokens,
        )
        write_json(self.out / "sweep" / "choice.json", choose(curve))

    def confirm(self) -> None:
        """The chosen restoration and its matched interpolation, once, on test."""
        choice = read_json(self.out / "sweep" / "choice.json")
        facts, levels = self._split("test")
        curve = self._curve()
        for name, method in (("restored", choice["method"]), ("interpolated", "interpolate")):
            answers = curve.answers(
                method,
                choice["fraction"],
                facts,
                levels,
                removed_norm_share=choice["removed_norm_share"],
                max_new_tokens=self.options.answer_new_tokens,
            )
            folder = make_folder(self.out / "eval" / name)
            write_parquet(folder / "answers.parquet", answers)
            write_json(folder / "metrics.json", summarise(answers, seed=self.options.seed))
        # The base model's best: shown the form of the answers. Under the trained prompt alone it would lack the
        # form, and every fact it could not put into words would count as gained by training.
        before = self._answers("base-few-shot")
        for name in ("low", "middle", "restored"):
            write_parquet(self.out / "transitions" / f"{name}.parquet", transitions(before, self._answers(name)))

    def headlines(self) -> None:
        """``metrics.json``: the report's figures, all computed from the files of the stages before."""
        write_json(self.out / "metrics.json", headline_figures(self.out, self.options.model_dump(mode="json")))

    def checkpoint(self, name: str) -> Path:
        """Where a tuned model is."""
        return self.out / "models" / name

    def _curve(self) -> Curve:
        return Curve(
            resolve(self.options.model),
            resolve(str(self.checkpoint("low"))),
            region=self.options.region,
            arithmetic=self.options.arithmetic,
            seed=self.options.seed,
        )

    def _split(self, split: str) -> tuple[list[Fact], dict[str, int]]:
        facts = read_facts(str(self.facts), split=split)
        return facts, steps.read_levels(self.mastery, facts) or {}

    def _answers(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.out / "eval" / name / "answers.parquet")


def read_lines(path: Path) -> int:
    """How many lines a file has."""
    with path.open("rb") as handle:
        return sum(1 for _ in handle)
