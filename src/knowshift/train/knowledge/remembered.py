"""What the base said on the panel, kept beside a trainer's checkpoints: after a resume the base is no longer there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from knowshift.errors import InputError
from knowshift.files import atomic_file, digest_of
from knowshift.measure.passages import Passage
from knowshift.train.knowledge.panel import Panel
from knowshift.train.knowledge.weights import WeightSample


def file_in(folder: Path, process: int) -> Path:
    """Where process number ``process`` keeps its own: of a sharded model each has other weights."""
    return folder / f"knowledge-{process}.safetensors"


def store(file: Path, asked: Any, panel: Panel, sample: WeightSample | None) -> None:
    """Write the panel and the weights sampled, if any, whole or not at all; ``asked`` names what it was made from."""
    weights = [] if sample is None else sample.base
    told = {
        "asked": digest_of(asked),
        "names": panel.names,
        "passages": [[passage.ids, passage.targets, passage.answer, passage.end] for passage in panel.passages],
        "known": panel.known,
        "count": panel.asked,
        "stride": None if sample is None else sample.stride,
        "sizes": [len(base) for base in weights],
    }
    tensors = {"said": torch.cat(panel.base), "weights": torch.cat([torch.empty(0), *(base.cpu() for base in weights)])}
    with atomic_file(file) as partial:
        save_file(tensors, partial, metadata={"knowshift": json.dumps(told)})


def restore(file: Path, asked: Any, sample: WeightSample | None) -> Panel:
    """The panel from ``file``; ``sample``, if any, gets the base's weights back.

    Raises:
        InputError: if the file is missing or from other settings, because a resumed model cannot say what the base did.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; what the base knew is not there to go on from after a resume")
    try:
        with safe_open(file, framework="pt") as stored:
            told = json.loads(stored.metadata()["knowshift"])
            said, weights = stored.get_tensor("said"), stored.get_tensor("weights")
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    sizes, stride = ([], None) if sample is None else ([len(base) for base in sample.base], sample.stride)
    if (told["asked"], told["stride"], told["sizes"]) != (digest_of(asked), stride, sizes):
        raise InputError(f"{file}: made with other facts or settings, or for another model; resume with the same")
    passages = [
        Passage(tuple(ids), len(targets), tuple(targets), answer, end) for ids, targets, answer, end in told["passages"]
    ]
    base = said.split([passage.kept for passage in passages])
    if sample is not None:
        sample.base = [part.to(old.device) for part, old in zip(weights.split(sizes), sample.base, strict=True)]
    return Panel(told["names"], passages, list(base), told["known"], told["count"])
