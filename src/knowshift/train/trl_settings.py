"""TRL's own settings: which of them a user may set beside ours, their types, and the ``SFTConfig`` of a run.

Knows TRL and transformers; not where a value was given.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from knowshift.errors import InputError, missing_extra
from knowshift.train.processes import count, share_of

if TYPE_CHECKING:
    from knowshift.train.options import TrainOptions

# TRL's names of options that have a name of their own here.
ALIASES = {
    "activation_checkpointing": "gradient_checkpointing",
    "lr_scheduler_type": "scheduler",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "warmup_steps": "warmup",
}

# TRL's settings that would break what a run promises: the reason, and their names (one ending in _ means all such).
_RESERVED = {
    "--out says where the checkpoint goes": ("output_dir",),
    "the loss is on the answer alone": ("completion_only_loss",),
    "no example is cut or left out": ("truncation_mode",),
    "the data are read and split into tokens here": (
        *("dataset_text_field", "dataset_kwargs", "dataset_num_proc", "remove_unused_columns", "label_names"),
        "length_column_name",
    ),
    "the model is loaded here, and never with code of its own": ("model_init_kwargs", "trust_remote_code"),
    "the tokenizer stays the base's; --chat-template gives a template": (
        "chat_template_path",
        "eos_token",
        "pad_token",
    ),
    "train evaluates nothing, knowshift eval does": (
        *("eval_", "do_", "per_device_eval_batch_size", "prediction_loss_only", "include_for_metrics"),
        *("batch_eval_metrics", "load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        *("bf16_full_eval", "fp16_full_eval"),
    ),
    "--save-steps and --resume-from are for this": (
        *("save_", "resume_from_checkpoint", "enable_jit_checkpoint", "ignore_data_skip"),
        "restore_callback_states_from_checkpoint",
    ),
    "train_log.parquet holds every step": ("logging_", "disable_tqdm"),
    "nothing is uploaded: push the folder when it is written": ("push_to_hub", "hub_"),
    "accelerate launch says how processes share the work": ("local_rank", "parallelism_config"),
    "--batch-size holds for the whole run": ("auto_find_batch_size",),
}

_POSITIVE = ("gradient_accumulation_steps", "per_device_train_batch_size")


@cache
def fields() -> dict[str, Any]:
    """The settings of TRL's SFT that may be set, by name, with their types.

    Raises:
        InputError: if TRL is not installed.
    """
    try:
        from trl import SFTConfig
    except ImportError as error:
        raise missing_extra("trl", "train") from error
    hints = typing.get_type_hints(SFTConfig)
    return {field.name: hints[field.name] for field in dataclasses.fields(SFTConfig) if not reserved(field.name)}


def reserved(name: str) -> str | None:
    """Why a setting of TRL is not for users to set; None where it is."""
    for reason, names in _RESERVED.items():
        if any(name == other or (other.endswith("_") and name.startswith(other)) for other in names):
            return reason
    return None


def checked(name: str, value: Any) -> Any:
    """``value`` in the type of TRL's setting ``name``, which must be among ``fields``.

    Raises:
        InputError: naming the setting.
    """
    try:
        adapter = TypeAdapter(fields()[name], config=ConfigDict(coerce_numbers_to_str=True))
        right = adapter.validate_python(value)
    except ValidationError as error:
        raise InputError(f"--set {name}={value}: {error.errors()[0]['msg']}") from error
    if name in _POSITIVE and right < 1:
        raise InputError(f"--set {name}={value}: must be at least 1")
    return right


def parts(settings: Mapping[str, Any]) -> int:
    """Into how many parts a batch is divided: one for each process and step of accumulation."""
    steps = checked("gradient_accumulation_steps", settings.get("gradient_accumulation_steps", 1))
    return count() * int(steps)


def sft_config(options: TrainOptions, folder: Path) -> Any:
    """The options as TRL's own settings; ``folder`` is where checkpoints go on the way.

    Checkpointing of activations (TRL's default) is off: it recomputes each forward pass to save memory. Nothing is
    truncated, because lengths were checked. Nothing is reported to other services.

    Raises:
        InputError: settings that TRL refuses.
    """
    from trl import SFTConfig

    from knowshift import models

    device = models.default_device()
    known = {field.name for field in dataclasses.fields(SFTConfig)}
    # Newer versions of transformers renamed it; older ones know the old name alone.
    recompute = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    settings: dict[str, Any] = {
        "per_device_train_batch_size": share_of(options.batch_size, options.set.get("gradient_accumulation_steps", 1)),
        "num_train_epochs": options.epochs,
        "max_steps": options.max_steps or -1,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": options.scheduler,
        "warmup_steps": options.warmup,
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "seed": options.seed,
        "bf16": bool(options.bf16),
        recompute: options.gradient_checkpointing,
        "max_length": None,
        "use_cpu": device.type == "cpu",
        "dataloader_pin_memory": device.type == "cuda",
        "report_to": "none",
        # Every weight that is trained has a gradient in every batch, so nobody need look which have none.
        "ddp_find_unused_parameters": False,
    }
    settings |= {name: value for name, value in options.set.items() if "." not in name}
    settings.pop("assistant_only_loss", None)  # is in the labels by now
    settings |= {
        "output_dir": str(folder),
        "completion_only_loss": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    with refusals():
        return SFTConfig(**settings)


@contextmanager
def refusals() -> Iterator[None]:
    """What TRL and transformers have against a setting is the user's to read, in one line."""
    try:
        yield
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        message = " ".join(str(error).split())
        raise InputError(f"--set: TRL cannot train with these settings: {message[:400]}") from error
