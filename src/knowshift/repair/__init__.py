"""Repair: the change of weights that gives back what a fine-tune forgot and keeps what it learned.

The room can be called: ``knowshift.repair(base, tuned, knowledge="world", task="task.jsonl", out="repaired")``.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A module that is a function too, since both go by one name."""

    def __call__(
        self,
        base: str | Path,
        tuned: str | Path,
        *,
        knowledge: str | Path,
        task: str | Path,
        out: str | Path,
        **options: Any,
    ) -> dict[str, Any]:
        """Give back what ``tuned`` forgot of ``base``; see ``knowshift repair``.

        Args:
            base, tuned: folder, hub id, adapter folder or ``smollm2``.
            knowledge: a fact set, as ``--knowledge``.
            task: a JSONL file of prompts and completions that were not trained on.
            out: the folder to write; what is there of an interrupted call is used.
            options: of ``run.RepairOptions``: task_metric, max_task_drop, budget (minutes), seed.

        Returns:
            The figures of ``metrics.json``: ``outcome``, ``sentence``, ``returned`` of ``lost``, ``model`` ...

        Raises:
            InputError: in one line, for what cannot be repaired.
        """  # fmt: skip
        from knowshift.repair.run import RepairOptions
        from knowshift.steps import repair

        settings = RepairOptions(knowledge=str(knowledge), task=Path(task), **options)
        return repair(str(base), str(tuned), Path(out), settings)


sys.modules[__name__].__class__ = _Room
