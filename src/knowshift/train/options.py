"""Everything a training run depends on, checked before anything is loaded."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from knowshift.errors import InputError
from knowshift.settings import Settings
from knowshift.train import trl_settings
from knowshift.train.methods import chosen, trains_adapter
from knowshift.train.methods.method import Method
from knowshift.train.stop import check_drift

# What transformers can run without an evaluation set.
SCHEDULERS = Literal[
    "cosine",
    "linear",
    "constant",
    "constant_with_warmup",
    "cosine_with_restarts",
    "polynomial",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
]


class TrainOptions(Settings):
    """How to fine-tune. Learning rate, batch size, epochs and schedule are the paper's (section 3).

    The paper names AdamW without its settings. Betas and epsilon are torch's, there is no weight decay (which
    would pull every weight toward zero and so count as a change of knowledge), and gradients are clipped to
    norm 1: the defaults of transformers.
    """

    model: str = Field(description="the base: a folder, a hub id, an adapter folder or smollm2")
    data: Path = Field(description='JSONL with "prompt" and "completion", or "messages"')
    out: Path = Field(description="the checkpoint folder to write")
    method: str = Field(default="sft", description="one of knowshift.train.methods, or several joined by +")
    set: dict[str, Any] = Field(
        default={}, description="options of methods as METHOD.OPTION, and of TRL's SFTConfig by their own names"
    )
    learning_rate: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=8, ge=1, description="sequences for one update, over all devices")
    epochs: float = Field(default=1, gt=0, allow_inf_nan=False)
    max_steps: int | None = Field(default=None, ge=1, description="updates, in place of epochs")
    scheduler: SCHEDULERS = Field(default="cosine")
    warmup: float = Field(default=0, ge=0, allow_inf_nan=False, description="steps, or below 1 a share of all steps")
    weight_decay: float = Field(default=0, ge=0, allow_inf_nan=False)
    max_grad_norm: float = Field(default=1, ge=0, allow_inf_nan=False, description="0 does not clip")
    seed: int = Field(default=0, ge=0, lt=2**32, description="order of the data, first weights of an adapter, dropout")
    bf16: bool | None = Field(default=None, description="bfloat16 autocast; by default where the processor has it")
    gradient_checkpointing: bool = Field(default=False, description="less memory, a quarter more time")
    merge: bool = Field(default=False, description="write a full checkpoint instead of an adapter")
    chat: bool = Field(default=False, description="prompt and completion by the chat template, as two turns")
    chat_template: Path | None = Field(default=None, description="a Jinja file in place of the model's own template")
    replay: Path | None = Field(default=None, description='other data to mix in: JSONL as data, or with "text"')
    replay_share: float = Field(default=0.1, gt=0, lt=1, allow_inf_nan=False, description="of all examples")
    save_steps: int | None = Field(
        default=None, ge=0, description="steps between checkpoints, 0: none; by default by the clock and their cost"
    )
    resume_from: Path | None = Field(default=None, description="a checkpoint, perhaps of another run, to go on from")
    stop_on_drift: str | None = Field(
        default=None, description="end when KL to the base (kl=NATS a token) or the share of known facts lost passes it"
    )
    drift_facts: str | None = Field(default=None, description="whose facts are watched; by default world's")
    drift_text: Path | None = Field(default=None, description="in place of facts, prompts or texts to measure KL on")
    drift_every: int | None = Field(
        default=None, ge=1, description="steps between measurements; by default as 5 % of the training time pays for"
    )
    drift_rewind: bool = Field(default=False, description="write the last measured weights within the bounds")

    @model_validator(mode="before")
    @classmethod
    def _by_own_name(cls, values: Any) -> Any:
        """What ``set`` holds under the name of an option, TRL's or ours, is that option."""
        if not isinstance(values, dict) or not isinstance(values.get("set"), Mapping):
            return values
        values, rest, share = dict(values), {}, None
        for key, value in values.pop("set").items():
            name = own_name(key)
            if name not in cls.model_fields:
                rest[key] = value
            elif name in values:
                raise InputError(f"--set {key}: given twice")
            elif key == "per_device_train_batch_size":
                share = trl_settings.checked(key, value)
            else:
                values[name] = value
        if share is not None:  # ours are the sequences of one update
            values["batch_size"] = share * trl_settings.parts(rest)
        return {**values, "set": rest}

    @field_validator("set")
    @classmethod
    def _in_trl_s_types(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {key: value if "." in key else _trl_value(key, value) for key, value in values.items()}

    @model_validator(mode="after")
    def _check_methods(self) -> Self:
        methods = self.methods()
        if self.merge and not trains_adapter(methods):
            raise InputError(f"--merge has no effect with --method {self.method}")
        if self.replay is None and "replay_share" in self.model_fields_set:
            raise InputError("--replay-share has no effect without --replay")
        check_drift(self)
        return self

    def methods(self) -> list[Method]:
        """The methods with their options, checked."""
        return chosen(self.method, {key: value for key, value in self.set.items() if "." in key})

    def files(self) -> dict[str, Path]:
        """Files that options name, by option, beside those that examples come from."""
        named: dict[str, Any] = {"drift_text": self.drift_text}
        if self.drift_facts is not None:
            named["drift_facts"] = Path(self.drift_facts)  # a name of a set is no file
        for name, method in zip(self._names(), self.methods(), strict=True):
            named |= {f"{name}.{option}": value for option, value in method}
        return {name: value for name, value in named.items() if isinstance(value, Path) and value.is_file()}

    def settings(self) -> dict[str, Any]:
        """The options as plain values, every option of the methods among them."""
        values = self.model_dump(mode="json")
        methods = self.methods()
        if not trains_adapter(methods):
            del values["merge"]
        if self.replay is None:
            del values["replay_share"]
        values["set"] |= {
            f"{name}.{option}": value
            for name, method in zip(self._names(), methods, strict=True)
            for option, value in method.model_dump(mode="json").items()
        }
        return values

    def _names(self) -> list[str]:
        return [name.strip() for name in self.method.split("+")]


def own_name(key: str) -> str:
    """Our name of an option that TRL calls ``key``; any other key as it is."""
    return trl_settings.ALIASES.get(key, key)


def _trl_value(key: str, value: Any) -> Any:
    if reason := trl_settings.reserved(key):
        raise InputError(f"--set {key}: cannot be set: {reason}")
    known = trl_settings.fields()
    if key not in known:
        near = get_close_matches(key, [*TrainOptions.model_fields, *known], n=3)
        raise InputError(f"--set {key}: unknown" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    return trl_settings.checked(key, value)
