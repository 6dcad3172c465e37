"""``KnowledgeCallback``: what a model still knows while any transformers or TRL ``Trainer`` trains it.

Between steps it scores a panel of facts that the base knew, the KL to the base on their answers, and how far the
weights have moved; it logs where the trainer logs, warns, may stop, and may keep the last step within bounds.
"""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from knowshift.errors import InputError
from knowshift.measure.forms import FORMS
from knowshift.train.knowledge import remembered
from knowshift.train.knowledge.bounds import Bounds, Passed, Score, logged
from knowshift.train.knowledge.host import agreed, calling_trainer, work
from knowshift.train.knowledge.keep import keep, kept_before
from knowshift.train.knowledge.pace import Pace
from knowshift.train.knowledge.panel import Facts, Panel, make_panel
from knowshift.train.knowledge.reading import undisturbed
from knowshift.train.knowledge.score import score
from knowshift.train.knowledge.weights import WeightSample, adapter_change, moved_by

logger = logging.getLogger(__name__)


class KnowledgeCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Give it to a trainer as ``callbacks=[KnowledgeCallback()]`` or by ``trainer.add_callback``.

    The base is what is trained before its first step; where an adapter is trained, the model without it. Training
    itself goes on as it would, bit for bit. Under several processes all score alike, and the main one decides.

    Logged at every scoring: ``knowledge_kept`` and ``knowledge_lost`` (shares of the panel), ``knowledge_kl``
    (KL(now || base), nats per token), ``knowledge_log_prob`` (mean change of an answer token's log-probability, nats),
    ``knowledge_weight_change`` (``||W - W0|| / ||W0||``), ``knowledge_panel`` (facts or windows),
    ``knowledge_seconds`` (spent so far) and ``knowledge_overhead`` (the same as a share of the training time).

    Args:
        facts: ``world``, a file, any other source of facts, or a list of facts or mappings (``question``,
            ``answers``). Default ``world``.
        text: in place of facts, a file of running text or of prompts and completions: KL alone is measured.
        size: facts in the panel, fewer where training is too short to find so many within ``budget``; windows of a
            text.
        form: how facts are asked: ``few-shot``, ``plain``, ``trained`` or ``chat``.
        split: only facts of this split.
        every: steps between scorings. Default: as often as ``budget`` pays for, by measured times.
        budget: share of the training time that all scorings together may take; those of the first step and the
            last are made in any case.
        max_lost: warn when a larger share of the known facts is lost.
        max_kl: warn when KL to the base is higher.
        stop: end training where it would warn.
        keep: a folder for a copy of the model as it was at the last scoring within bounds, whole or absent.
        memory: a folder for what the base said, which a resume of full tuning needs. Default: the trainer's
            ``output_dir``, where it saves checkpoints.
        tokenizer: where the trainer has none (``processing_class``).
        seed: which facts are asked, which windows are read.

    Attributes:
        panel: what is scored; None before training.
        scores: every ``Score`` of this run, those before a resume among them.
        passed: the first bound that was passed, None before that.
        kept_step: the step of the copy in ``keep``.

    Raises:
        InputError: here for options that do not go together, from the trainer's ``train`` for a panel that is empty
            or cannot be asked.
    """

    def __init__(
        self,
        facts: Facts | None = None,
        *,
        text: str | Path | None = None,
        size: int = 24,
        form: str = "few-shot",
        split: str | None = None,
        every: int | None = None,
        budget: float = 0.05,
        max_lost: float | None = 0.25,
        max_kl: float | None = None,
        stop: bool = False,
        keep: str | Path | None = None,
        memory: str | Path | None = None,
        tokenizer: Any = None,
        seed: int = 0,
    ) -> None:
        if text is not None and facts is not None:
            raise InputError("KnowledgeCallback: give facts or text, not both")
        if form not in FORMS:
            raise InputError(f"KnowledgeCallback: form {form!r} is unknown; choose from {', '.join(FORMS)}")
        for name, value, least in (("size", size, 1), ("every", every, 1), ("max_kl", max_kl, 0)):
            if value is not None and not value >= least:
                raise InputError(f"KnowledgeCallback: {name} must be at least {least}, not {value}")
        for name, share in (("budget", budget), ("max_lost", max_lost)):
            if share is not None and not 0 <= share <= 1:
                raise InputError(f"KnowledgeCallback: {name} is a share between 0 and 1, not {share}")
        self.bounds = Bounds(max_kl, None if text is not None else max_lost)
        if (stop or keep is not None) and self.bounds == Bounds():
            raise InputError("KnowledgeCallback: stop and keep need max_kl or, with facts, max_lost")
        self.facts: Facts | None = "world" if facts is None and text is None else facts
        self.text = None if text is None else Path(text)
        self.size, self.form, self.split, self.seed = size, form, split, seed
        self.every, self.budget, self.stop = every, budget, stop
        self.keep = None if keep is None else Path(keep)
        self.memory = None if memory is None else Path(memory)
        self.tokenizer = tokenizer
        self.panel: Panel | None = None
        self.scores: list[Score] = []
        self.passed: Passed | None = None
        self.kept_step: int | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Ask the base, or take up what it said before this run was interrupted."""
        self._trainer = calling_trainer()
        self.kept_step = None if self.keep is None else kept_before(self.keep, self._trainer)
        self.scores = logged(state.log_history)
        self.passed = next(filter(None, map(self.bounds.passed, self.scores)), None)
        self._pace = Pace(self.every, self.budget)
        with self._pace.own_time():
            adapted = hasattr(model, "disable_adapter")
            self._moved = moved_by(model) if adapted else None
            there = adapted and self._moved is None  # the base is, whenever it is asked: without the adapter
            # Before anything is read: where a forward pass ends, FSDP leaves gathered weights in place of shards.
            self._sample = None if adapted else WeightSample(model)
            file = remembered.file_in(self.memory or Path(args.output_dir), args.process_index)
            if not there and state.global_step:
                self.panel = remembered.restore(file, self._made_from(), self._sample)
            else:
                with undisturbed(model), model.disable_adapter() if there else nullcontext():
                    tokens = math.inf if self.every else self.budget / 2 * work(args, state, train_dataloader)
                    self.panel = self._ask(model, self.tokenizer or processing_class, tokens)
                if not there and (self.memory is not None or args.save_strategy != "no"):
                    remembered.store(file, self._made_from(), self.panel, self._sample)
        if self._moved is not None and state.is_world_process_zero:
            logger.warning(
                "an adapter with init_lora_weights=%s changes the weights beneath it: the base is the model as it is "
                "before the first step, adapter included, and knowledge_weight_change is left out",
                self._moved,
            )
        self._pace.begin(state.max_steps, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Score the panel if it is time to."""
        pace, step = self._pace, state.global_step
        pace.passes(step)
        if step != pace.due:
            return
        if not pace.only_plans(step):
            self._score(args, state, control, model)
        pace.due = int(agreed([pace.next(step)], args)[0])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Score the last step where training ended before its time; say what it cost where the budget was passed."""
        last = self.scores[-1].step if self.scores else 0
        if last < state.global_step and not args.load_best_model_at_end:  # those are weights of another step
            self._score(args, state, control, model)
        if state.is_world_process_zero and (told := self._pace.told()):
            logger.warning(told)

    def _score(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any) -> None:
        self._pace.scorings += 1
        with self._pace.own_time():
            found = self._found(args, state, control, model)
            passed = self.bounds.passed(found)
            if passed is None:
                if self.keep is not None:
                    keep(self.keep, self._trainer, found)
                    self.kept_step = found.step
                return
        if self.passed is None or self.stop:
            self.passed = passed
            if state.is_world_process_zero:
                self._warn(found, passed)
        control.should_training_stop |= self.stop

    def _found(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any) -> Score:
        assert self.panel is not None
        with undisturbed(model):
            found = score(model, self.panel, step=state.global_step, weights=self._change(model))
            # Replicas may differ in the last bits, and all must stop at the same step.
            kl, lost = agreed([found.kl, 0.0 if found.lost is None else found.lost], args)
            found = replace(found, kl=kl, lost=None if found.lost is None else lost)
            self.scores.append(found)
            self._log(found, state, control)
        return found

    def _change(self, model: Any) -> float | None:
        if self._sample is not None:
            return self._sample.change(model)
        return adapter_change(model) if self._moved is None else None

    def _log(self, found: Score, state: TrainerState, control: TrainerControl) -> None:
        assert self.panel is not None
        row = found.row() | {
            "knowledge_panel": len(self.panel.passages),
            "knowledge_seconds": self._pace.spent,
            "knowledge_overhead": self._pace.spent / self._pace.trained,
        }
        if self._trainer is None:
            state.log_history.append({**row, "epoch": state.epoch, "step": state.global_step})
            return
        # As for an evaluation: the model is in evaluation mode, so TRL adds none of its training averages to this row
        # (and forgets none), and the row that is due for this step is still written after it.
        due = control.should_log
        self._trainer.log(row)
        control.should_log = due

    def _warn(self, found: Score, passed: Passed) -> None:
        names = f" (such as: {found.names[0]})" if found.names else ""
        logger.warning("%s%s%s", passed, names, "; training stops here" if self.stop else "")

    def _ask(self, model: Any, tokenizer: Any, tokens: float) -> Panel:
        if tokenizer is None:
            raise InputError("KnowledgeCallback: the trainer has no tokenizer (processing_class); give tokenizer=...")
        return make_panel(
            model,
            getattr(tokenizer, "tokenizer", tokenizer),  # a processor holds one
            facts=self.facts,
            text=self.text,
            form=self.form,
            split=self.split,
            size=self.size,
            tokens=tokens,
            seed=self.seed,
        )

    def _made_from(self) -> list[Any]:
        return [str(self.text or self.facts), self.size, self.form, self.split, self.seed]
