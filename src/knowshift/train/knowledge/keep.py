"""A copy of the model as it was at a step: whole or absent, each in place of the one before."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from knowshift.errors import InputError
from knowshift.files import atomic_folder, full_disk_refused, write_json
from knowshift.train.knowledge.bounds import Score

RECORD = "knowledge.json"


def check_keep(folder: Path, trainer: Any) -> None:
    """Refuse to keep copies before training where that cannot work later.

    Raises:
        InputError: if nobody can save the model, or ``folder`` holds anything but such a copy.
    """
    if trainer is None:
        raise InputError(f"keep {folder}: only transformers' Trainer can save the model it trains")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file()):
        raise InputError(f"keep {folder}: holds something else; choose an empty or new folder")


def keep(folder: Path, trainer: Any, score: Score) -> None:
    """Save what is trained as the trainer saves it, with ``knowledge.json``: the step and its figures."""
    if trainer.args.process_index:  # parts of a sharded model are collected from every process, written by the main one
        trainer.save_model(str(folder.with_name(f".{folder.name}.partial")), _internal_call=True)
    else:
        with full_disk_refused(folder), atomic_folder(folder) as partial:
            trainer.save_model(str(partial), _internal_call=True)
            write_json(partial / RECORD, asdict(score))
    trainer.accelerator.wait_for_everyone()
