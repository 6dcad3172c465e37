"""Other abilities: tasks of lm-evaluation-harness on a checkpoint, their figures as a table of ours.

The harness does the asking and the scoring; this file starts it without remote code and reads what it found. It comes
with the extra ``lm-eval``. Knows nothing of facts.
"""

import contextlib
import importlib.metadata
import math
import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from knowshift.errors import InputError, missing_extra
from knowshift.progress import console

SCHEMA: dict[str, Any] = {
    "task": pl.String,
    "metric": pl.String,
    "filter": pl.String,
    "value": pl.Float64,
    "stderr": pl.Float64,
    "n": pl.Int64,
}
# On a processor, larger batches are not faster; on CUDA the harness finds what fits.
CPU_BATCH = 8


class Harness:
    """Tasks by name, checked before a model is loaded.

    Args:
        tasks: names of tasks, groups or tags, such as ``gsm8k``.
        folder: YAML files of tasks of one's own, beside those that the harness brings.

    Raises:
        InputError: the harness is not installed, the folder is none, or a name is unknown.
    """

    def __init__(self, tasks: Sequence[str], folder: Path | None = None) -> None:
        if not tasks or not all(tasks):
            raise InputError("--tasks: names with commas between are expected, such as gsm8k,arc_easy")
        if folder is not None and not folder.is_dir():
            raise InputError(f"--tasks-dir {folder}: no such folder")
        try:
            with _quiet():
                self._harness: Any = import_module("lm_eval")
                manager = import_module("lm_eval.tasks").TaskManager
        except ModuleNotFoundError as error:
            raise missing_extra(error.name or "lm_eval", "lm-eval") from error
        self._tasks = list(tasks)
        with _quiet(), _one_line("the tasks cannot be read"):
            local = None if folder is None else str(folder)
            # Reading the thousands that the harness brings takes seconds; plain tasks of the folder need none of them.
            if local:
                self._manager = manager(include_path=local, include_defaults=False)
            if not local or not set(self._tasks) <= set(self._manager.all_subtasks):
                self._manager = manager(include_path=local)
        known = set(self._manager.all_tasks)
        if unknown := [task for task in self._tasks if task not in known]:
            raise InputError(f"--tasks: the harness knows no task {unknown[0]!r}")

    @property
    def version(self) -> dict[str, str]:
        """For ``run.json``: figures depend on it."""
        return {"lm_eval": importlib.metadata.version("lm_eval")}

    def run(self, model: Any, tokenizer: Any, *, limit: int | None = None, seed: int = 0) -> pl.DataFrame:
        """Put the tasks to a loaded model, each with the prompt and the examples that it asks for.

        Args:
            model: a causal language model of transformers.
            tokenizer: its tokenizer.
            limit: only so many items of each task, the first ones.
            seed: of whatever a task draws, such as its solved examples.

        Returns:
            One row a task, metric and filter: value and its standard error (null where the harness gives none),
            and n, how many items were asked.

        Raises:
            InputError: in one line, whatever a task or its data fail with.
        """
        with _quiet(), _one_line(f"--tasks {','.join(self._tasks)}"):
            batch = "auto" if model.device.type == "cuda" else CPU_BATCH
            hflm = import_module("lm_eval.models.huggingface").HFLM
            found = self._harness.simple_evaluate(
                model=hflm(pretrained=model, tokenizer=tokenizer, batch_size=batch),
                tasks=self._tasks,
                task_manager=self._manager,
                limit=limit,
                log_samples=False,
                random_seed=seed,
                numpy_random_seed=seed % 2**32,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
        return pl.DataFrame(_rows(found), schema=SCHEMA, orient="row").sort("task", "metric", "filter")


def figures(table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """``tasks`` of ``metrics.json``: value, stderr and n by task and metric; a filter stands after a comma."""
    found: dict[str, dict[str, Any]] = {}
    for task, metric, kind, *numbers in table.iter_rows():
        name = metric if kind == "none" else f"{metric},{kind}"
        found.setdefault(task, {})[name] = dict(zip(("value", "stderr", "n"), numbers, strict=True))
    return found


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str, float | None, float | None, int | None]]:
    for task, entry in found["results"].items():
        asked = found["n-samples"].get(task, {}).get("effective", entry.get("sample_len"))
        for key, value in entry.items():
            metric, comma, kind = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                yield task, metric, kind, _number(value), _number(entry.get(f"{metric}_stderr,{kind}")), asked


def _number(value: Any) -> float | None:
    """A finite number; None for what is none, such as "N/A" where there is no standard error."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tasks are programs, and their data come from anywhere: anything may be raised
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{what}: {type(error).__name__}: {reason}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on standard error unless it is a terminal: the harness logs, shows bars and calls git."""
    if console.is_terminal:
        yield
        return
    with open(os.devnull, "w") as sink, contextlib.redirect_stderr(sink):  # noqa: PTH123
        before = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
