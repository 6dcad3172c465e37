"""A copy of the model as it was at a step: whole or absent, each in place of the one before."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from knowshift.errors import InputError
from knowshift.files import atomic_folder, full_disk_refused, read_json, write_json
from knowshift.train.knowledge.bounds import Score

RECORD = "knowledge.json"


def kept_before(folder: Path, trainer: Any) -> int | None:
    """The step of the copy that a run which goes on finds; where a run begins, a copy of an earlier one is removed.

    Refuses before training what cannot work later.

    Raises:
        InputError: if nobody can save the model, or ``folder`` holds anything but such a copy.
    """
    if trainer is None:
        raise InputError(f"keep {folder}: only transformers' Trainer can save the model it trains")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file()):
        raise InputError(f"keep {folder}: holds something else; choose an empty or new folder")
    if trainer.state.global_step and (folder / RECORD).is_file():
        return int(read_json(folder / RECORD)["step"])
    if trainer.args.process_index == 0 and folder.is_dir():
        shutil.rmtree(folder)
    return None


def keep(folder: Path, trainer: Any, score: Score) -> None:
    """Save what is trained as the trainer saves it, with ``knowledge.json``: the step and its figures."""
    if trainer.args.process_index:  # parts of a sharded model are collected from every process, written by the main one
        trainer.save_model(str(folder.with_name(f".{folder.name}.partial")), _internal_call=True)
    else:
        with full_disk_refused(folder), atomic_folder(folder) as partial:
            trainer.save_model(str(partial), _internal_call=True)
            write_json(partial / RECORD, asdict(score))
    trainer.accelerator.wait_for_everyone()
