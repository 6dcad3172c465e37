"""TRL's SFTTrainer whose checkpoints are whole or absent, and hold all that a resume needs.

Weights, optimizer, schedule and random states are saved and read by transformers; this adds what it leaves out: the
keepers' own state, the count of tokens, and weights under the names they have in memory.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from trl import SFTTrainer

from knowshift.errors import InputError
from knowshift.models.load import first_line
from knowshift.train.checkpoints import PREFIX, Checkpoints
from knowshift.train.methods.method import Keeper


class Resumable(SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """Saves into ``checkpoints``; without them it never saves."""

    keepers: Sequence[Keeper] = ()

    def __init__(self, *args: Any, checkpoints: Checkpoints | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.checkpoints = checkpoints

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None on the way: the card of the result is ours."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        if self.checkpoints is None:
            return
        step, usual = self.state.global_step, self.args.output_dir
        main, wait = self.args.should_save, self.accelerator.wait_for_everyone
        with self.checkpoints.saving(step, main=main, wait=wait) as folder:
            self.args.output_dir = str(folder)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = usual
            for number, keeper in enumerate(self.keepers):
                file = self._keeper_file(folder / f"{PREFIX}{step}", number)
                save_file({name: tensor.detach().cpu().contiguous() for name, tensor in keeper.state().items()}, file)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights under the names they have in memory, as the resume looks for them; no tokenizer, no pickle."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        # A mixture of experts is stored tensor by expert and held in one piece: read back by name, nothing would fit.
        named = {"save_original_format": False} if isinstance(model, PreTrainedModel) else {}
        model.save_pretrained(output_dir, state_dict=state_dict, is_main_process=self.args.should_save, **named)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with _readable(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        with _readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
            for number, keeper in enumerate(self.keepers):
                keeper.resume(load_file(self._keeper_file(Path(checkpoint), number)))
        tokens = [entry["num_tokens"] for entry in self.state.log_history if "num_tokens" in entry]
        self._total_train_tokens = int(tokens[-1]) if tokens else 0

    def _keeper_file(self, folder: Path, number: int) -> Path:
        return folder / f"keeper-{number}-{self.args.process_index}.safetensors"


@contextmanager
def _readable(folder: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise InputError(f"{folder}: this checkpoint cannot be read: {first_line(error)}; remove it") from error
