"""A training run's progress and its log; knows transformers' callbacks, not what is trained."""

import math
from contextlib import ExitStack
from typing import Any

import polars as pl
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from knowshift.errors import InputError
from knowshift.progress import bar

SCHEMA: dict[str, pl.DataType] = {
    "step": pl.Int64(),
    "epoch": pl.Float64(),
    "loss": pl.Float64(),
    "learning_rate": pl.Float64(),
    "grad_norm": pl.Float64(),
    "tokens": pl.Int64(),
}


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Moves the bar by one each step and ends a run whose loss is no number any more.

    Args:
        stack: closes the bar when the run ends, however it ends.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.advance = self.stack.enter_context(bar("Training", state.max_steps, done=state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.advance(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                raise InputError(
                    f"training failed at step {state.global_step}: the {name.replace('_', ' ')} is {value}; "
                    "lower --learning-rate, or train without --bf16"
                )


# In the log where it was watched; null at steps that were not measured.
KNOWLEDGE = ("knowledge_lost", "knowledge_kl", "knowledge_log_prob", "knowledge_weight_change")


def log_table(history: list[dict[str, float]]) -> pl.DataFrame:
    """One row a step: the columns of ``SCHEMA``, then by name one for each further figure logged.

    ``loss`` is the mean over the step's completion tokens before the update, ``learning_rate`` the one the update
    used, ``grad_norm`` the norm before clipping, ``tokens`` all tokens seen so far without padding. TRL adds
    ``entropy`` and ``mean_token_accuracy`` of the completion tokens, methods add figures of their own.
    """
    measured = {
        entry["step"]: {name: entry[name] for name in KNOWLEDGE if name in entry}
        for entry in history
        if "knowledge_kl" in entry
    }
    steps = [
        {"tokens": entry.get("num_tokens"), **entry, **measured.get(entry["step"], {})}
        for entry in history
        if "loss" in entry
    ]
    further = {name for entry in steps for name in entry} - {*SCHEMA, "num_tokens"}
    schema = SCHEMA | {name: pl.Float64() for name in sorted(further)}
    return pl.DataFrame([{name: entry.get(name) for name in schema} for entry in steps], schema=schema, orient="row")
