"""Several processes that train one model, as ``accelerate launch`` starts them: who leads, what all agree on.

Knows torch's process group and accelerate's state; not what is trained. Started alone a process leads, agrees with
itself, and nothing here costs anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from knowshift.errors import InputError
from knowshift.progress import console

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

# Long enough for the first process to end of the same error and for the launcher to end the others.
_GRACE = 5.0


def count() -> int:
    """How many processes the launcher started for this run."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def leads() -> bool:
    """Whether this is the first of them: the one that writes and speaks."""
    return int(os.environ.get("RANK") or 0) == 0


def shards() -> bool:
    """Whether the launcher wants the model divided among processes, so that no device has to hold it whole."""
    return any(os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED"))


def receives() -> bool:
    """Whether this process shall not read the model, but get its part of it from the first."""
    return not leads() and shards() and os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "").lower() == "true"


@contextmanager
def joined(timeout: float) -> Iterator[None]:
    """Inside the block the processes know one another, and only the first has anything to say.

    Where all end of the same error the first says it. One that ends alone says so a moment later, and the launcher
    ends the others, which may be waiting for it.

    Args:
        timeout: seconds to wait for the slowest process at any one point.

    Raises:
        InputError: if the launcher was set up in a way that cannot train here.
    """
    if count() == 1:
        yield
        return
    if shards() and os.environ.get("FSDP_VERSION", "2") == "1":
        raise InputError("accelerate launch: FSDP 1 is not supported: set fsdp_version: 2, as configs/fsdp2.yaml does")
    from accelerate import PartialState

    from knowshift import models

    PartialState(cpu=models.default_device().type == "cpu", timeout=timedelta(seconds=timeout))
    silent, console.quiet = console.quiet, console.quiet or not leads()
    try:
        yield
    except InputError:
        if not leads():
            time.sleep(_GRACE)
        raise
    finally:
        console.quiet = silent


@contextmanager
def together() -> Iterator[None]:
    """Leave the block together: bad input that one process meets in it ends all of them.

    Every process must come to the block. Another exception than bad input passes at once.

    Raises:
        InputError: on the first process: its own, else that of the next.
        SystemExit: on the others, a moment later, with status 2.
    """
    found: Exception | None = None
    try:
        yield
    except (InputError, OSError) as error:
        found = error
    if count() > 1:
        from accelerate.utils import gather_object

        said = [text for text in gather_object([None if found is None else _line(found)]) if text is not None]
        if said and not leads():  # the first says it
            time.sleep(_GRACE)
            raise SystemExit(2)
        if said and not isinstance(found, InputError):
            raise InputError(said[0]) from found
    if found is not None:
        raise found


def _line(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    return str(error)


def share_of(batch_size: int, accumulation: int) -> int:
    """The sequences that one process computes at a time, of ``batch_size`` for one update.

    Raises:
        InputError: if they cannot be divided evenly.
    """
    parts = count() * accumulation
    if batch_size % parts:
        steps = f" x {accumulation} accumulation steps" if accumulation > 1 else ""
        raise InputError(
            f"--batch-size {batch_size}: the sequences of one update cannot be divided evenly among {count()} "
            f"process{'es' if count() > 1 else ''}{steps}; take a multiple of {parts}"
        )
    return batch_size // parts


def gather(model: Module) -> bool:
    """Every parameter whole again, on the CPU of the first process; the others keep none of it.

    One parameter at a time is whole on a device. Every process must call it.

    Returns:
        Whether the model was divided; else it stays as it is.
    """
    from torch.nn import Parameter

    whole: dict[Parameter, Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None or not _divided(parameter):
                continue
            if parameter not in whole:
                whole[parameter] = Parameter(_whole(parameter), requires_grad=parameter.requires_grad)
            module._parameters[name] = whole[parameter]
    return bool(whole)


def _divided(parameter: Parameter) -> bool:
    return hasattr(parameter, "placements") or hasattr(parameter, "ds_id")


def _whole(parameter: Any) -> Tensor:
    """All of a divided parameter on the first process; elsewhere its shape alone."""
    import torch

    if hasattr(parameter, "placements"):  # torch's DTensor, as FSDP2 makes it
        full = parameter.detach().full_tensor()
        return full.cpu() if leads() else torch.empty_like(full, device="meta")
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        full = parameter.detach()
        return full.cpu().clone() if leads() else torch.empty_like(full, device="meta")
