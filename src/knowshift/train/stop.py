"""``--stop-on-drift``: what of the base is watched while ``train`` runs, and what is told of it afterwards.

The callback does the work, as it does in anybody's trainer; here it is set up from options.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowshift.errors import InputError
from knowshift.facts.sources import read_facts
from knowshift.train import processes
from knowshift.train.checkpoints import PREFIX
from knowshift.train.knowledge.bounds import Bounds, parse_bounds

if TYPE_CHECKING:
    from knowshift.train.knowledge.callback import KnowledgeCallback
    from knowshift.train.options import TrainOptions

WITHIN = "within-bounds"


def check_drift(options: TrainOptions) -> None:
    """Refuse options of the watch that do not go together.

    Raises:
        InputError: naming the flag.
    """
    bounds = _bounds(options)
    if options.drift_facts is not None and options.drift_text is not None:
        raise InputError("--drift-text: takes the place of --drift-facts; give one of the two")
    if options.drift_text is not None and bounds.lost is not None:
        raise InputError(f"--stop-on-drift {options.stop_on_drift}: no facts are known in a --drift-text; give kl=NATS")
    if options.drift_every is not None and not watches(options):
        raise InputError("--drift-every: needs --stop-on-drift, --drift-facts or --drift-text")
    if options.drift_rewind and options.stop_on_drift is None:
        raise InputError("--drift-rewind: needs --stop-on-drift")
    if options.drift_rewind and processes.shards():
        raise InputError("--drift-rewind: not where the model is divided among processes (FSDP, DeepSpeed)")


def watches(options: TrainOptions) -> bool:
    """Whether anything of the base is watched."""
    return any(value is not None for value in (options.stop_on_drift, options.drift_facts, options.drift_text))


def watch(options: TrainOptions, folder: Path, start: Path | None) -> KnowledgeCallback | None:
    """The callback that watches a run, if it is to be watched.

    Args:
        options: the run's.
        folder: where the run keeps what a resume needs.
        start: the checkpoint it goes on from, perhaps of another run.

    Raises:
        InputError: no such facts.
    """
    if not watches(options):
        return None
    from knowshift.train.knowledge.callback import KnowledgeCallback
    from knowshift.train.knowledge.remembered import file_in

    if start is not None and start.name.startswith(PREFIX) and start.parent != folder and processes.leads():
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(processes.count()):
            if (theirs := file_in(start.parent, number)).is_file():
                shutil.copyfile(theirs, file_in(folder, number))
    bounds = _bounds(options)
    return KnowledgeCallback(
        None if options.drift_text is not None else _facts(options.drift_facts or "world"),
        text=options.drift_text,
        every=options.drift_every,
        max_kl=bounds.kl,
        max_lost=bounds.lost,
        stop=options.stop_on_drift is not None,
        keep=folder / WITHIN if options.drift_rewind else None,
        memory=folder,
        seed=options.seed,
    )


def rewind(trainer: Any, callback: KnowledgeCallback) -> None:
    """Give the trained model back the weights of the last scoring within bounds, if training ended beyond them.

    Raises:
        InputError: if no scoring was.
    """
    if callback.scores and not math.isfinite(callback.scores[-1].kl) and callback.kept_step is None:
        raise InputError(
            f"training failed by step {callback.scores[-1].step}: the model's logits are no numbers; "
            "lower --learning-rate, or train without --bf16"
        )
    if callback.keep is None or callback.passed is None:
        return
    if callback.kept_step is None:
        raise InputError(
            f"--drift-rewind: {callback.passed}, and no step before that was measured; "
            "measure more often with --drift-every, or lower --learning-rate"
        )
    trainer._load_from_checkpoint(str(callback.keep))


def told(callback: KnowledgeCallback) -> dict[str, Any]:
    """What ``run.json`` says of the watch: the panel, every scoring, and where and why it ended."""
    assert callback.panel is not None
    passed = callback.passed
    return {
        "panel": len(callback.panel.passages),
        "asked": callback.panel.asked,
        "scores": [
            {"step": score.step, **{name: _plain(value) for name, value in score.row().items()}}
            for score in callback.scores
        ],
        "stopped": None
        if passed is None or not callback.stop
        else {
            "step": passed.step,
            "measure": passed.measure,
            "value": _plain(passed.value),
            "bound": passed.bound,
            "reason": str(passed),
            "weights_of_step": passed.step if callback.keep is None else callback.kept_step,
        },
    }


def sentence(drift: dict[str, Any]) -> str:
    """The same for a model card, in a paragraph."""
    panel = f"{drift['panel']} of {drift['asked']} facts or windows asked before training"
    if not drift["scores"]:
        return f"What the base knew was to be watched on {panel}; training ended before the first measurement."
    last = drift["scores"][-1]
    lost = f", {last['knowledge_lost']:.1%} of them lost" if "knowledge_lost" in last else ""
    kl = "no number" if last["knowledge_kl"] is None else f"{last['knowledge_kl']:.4f} nats a token"
    text = f"What the base knew was watched on {panel}: at step {last['step']} KL to the base was {kl}{lost}."
    stopped = drift["stopped"]
    if stopped is None:
        return text
    written = f"These are the weights of step {stopped['weights_of_step']}."
    return f"{text} Training was stopped: {stopped['reason']}. {written}"


def _plain(value: float) -> float | None:
    """JSON has no word for what is no number."""
    return value if math.isfinite(value) else None


def _bounds(options: TrainOptions) -> Bounds:
    return Bounds() if options.stop_on_drift is None else parse_bounds(options.stop_on_drift)


def _facts(source: str) -> Any:
    """The validation facts of a set that has such, else all: what training asks must not be in the panel."""
    facts = read_facts(source)
    return [fact for fact in facts if fact.split == "validation"] or facts
