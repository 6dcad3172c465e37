"""Two models read their passages, then their heads are compared a few positions at a time.

Joins ``states`` (one model after the other, hidden states on disk) with ``kl`` (logits to divergences). What
the figures mean for a fact is not known here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from knowshift.errors import InputError
from knowshift.measure.kl import Divergence, divergence, top_divergence
from knowshift.measure.kl_loop import divergence_compiled
from knowshift.measure.passages import Passage
from knowshift.measure.sharing import Layout
from knowshift.measure.states import Head, final_states, take_head
from knowshift.models import load_model
from knowshift.models.load import default_device, first_line, spread
from knowshift.models.resident import load_with_adapter
from knowshift.progress import bar

# Logits made at once by one head: as many as keep the device busy.
HEAD_LOGITS = {"cpu": 1 << 23, "cuda": 1 << 25}

# Results are written to columns made beforehand. Kept one by one, these small tensors would settle in the gaps
# that freed logits leave in the heap, and the process would grow by the logits of every position.
COLUMNS = (torch.float64, torch.float64, torch.int64, torch.int64, *4 * (torch.float64,))


@dataclass(frozen=True, slots=True)
class Reading:
    """What is left of a model that has read its passages.

    Attributes:
        path: its checkpoint.
        states: (positions, hidden) on disk.
        head: from states to logits.
    """

    path: Path
    states: torch.Tensor
    head: Head


def read(
    path: Path,
    passages: Sequence[Passage],
    file: Path,
    *,
    number_type: torch.dtype,
    batch_tokens: int,
    label: str,
    compiled: bool = False,
    shared: Layout | None = None,
) -> Reading:
    """Load a checkpoint, let it read ``passages`` and keep its states in ``file`` and its head in memory.

    A model too large for one GPU is spread over what there is; with ``compiled`` its blocks go through
    ``torch.compile`` first.
    """
    waiting = file.with_name(f"{file.name}-weights")
    model = load_model(path, dtype=number_type, device_map=spread(path, number_type), offload_folder=waiting)
    with compiling(model, wanted=compiled):
        states = final_states(model, passages, file, batch_tokens=batch_tokens, label=label, shared=shared)
    return Reading(path, states, take_head(model))


def read_adapted(
    base: Path,
    adapter: Path,
    passages: tuple[Sequence[Passage], Sequence[Passage]],
    files: tuple[Path, Path],
    *,
    number_type: torch.dtype,
    batch_tokens: int,
    compiled: bool = False,
    shared: Layout | None = None,
) -> tuple[Reading, Reading]:
    """``read`` for a base and an adapter on it, in one model: the adapter off for the first, on for the second."""
    wrapped = load_with_adapter(base, adapter, dtype=number_type)
    model = wrapped.get_base_model()

    def states(side: int, label: str) -> torch.Tensor:
        return final_states(model, passages[side], files[side], batch_tokens=batch_tokens, label=label, shared=shared)

    with compiling(model, wanted=compiled):
        with wrapped.disable_adapter():
            before = states(0, "base model")
        after = states(1, "tuned model")
    head = take_head(model)

    def without(states: torch.Tensor) -> torch.Tensor:
        with wrapped.disable_adapter():
            return head(states)

    adapted = any("lora" in name for name, _ in model.get_output_embeddings().named_parameters())
    return Reading(base, before, without if adapted else head), Reading(adapter, after, head)


@contextmanager
def compiling(model: Any, *, wanted: bool) -> Iterator[None]:
    """Have the model's first half compiled at its first use, if ``wanted``.

    Raises:
        InputError: where no compiler works.
    """
    if not wanted:
        yield
        return
    # Batches differ in size: one program for all of them.
    model.base_model.compile(dynamic=True)
    with _compiler_errors():
        yield


@contextmanager
def _compiler_errors() -> Iterator[None]:
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise InputError(f"--compile: torch cannot compile this model here: {first_line(error)}") from error


@torch.inference_mode()
def compare_all(
    base: Reading, tuned: Reading, targets: torch.Tensor, words: int, *, compiled: bool = False
) -> Divergence:
    """The divergence at every position over the first ``words`` tokens, on the CPU.

    Args:
        base: of the same passages as ``tuned``.
        tuned: the other model.
        targets: (positions,) the token that truly follows.
        words: tokens of the tokenizer; rows of a padded vocabulary beyond them are left out.
        compiled: go through ``torch.compile``; on a CPU a compiled loop is at work either way.

    Raises:
        InputError: naming the model whose logits are not finite.
    """
    found = Divergence(*(torch.empty(len(targets), dtype=dtype) for dtype in COLUMNS))
    elsewhere = torch.compile(divergence, dynamic=True) if compiled else divergence
    for place, left, right in _logits(base, tuned, words):
        if left.device.type == "cpu":
            part = divergence_compiled(left, right, targets[place], words)
        else:
            with _compiler_errors() if compiled else nullcontext():
                part = elsewhere(left[:, :words], right[:, :words], targets[place].to(left.device))
        _check_finite(part.tuned_base, (base, left), (tuned, right))
        for column, values in zip(found, part, strict=True):
            column[place] = values
    return found


@torch.inference_mode()
def compare_tops(base: Reading, tuned: Reading, words: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The paper's divergence at every position: over the tuned model's top tokens alone.

    Returns:
        KL(tuned || base), KL(base || tuned), and whether both models' most likely token is the same.

    Raises:
        InputError: naming the model whose logits are not finite.
    """
    forward, backward = (torch.empty(len(base.states), dtype=torch.float64) for _ in range(2))
    agree = torch.empty(len(base.states), dtype=torch.bool)
    for place, *logits in _logits(base, tuned, words):
        left, right = (side[:, :words] for side in logits)
        forward[place], backward[place] = top_divergence(left, right)
        agree[place] = left.argmax(-1) == right.argmax(-1)
        _check_finite(forward[place], (base, left), (tuned, right))
    return forward, backward, agree


def _logits(base: Reading, tuned: Reading, words: int) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Both models' logits, those of padding beyond ``words`` too, the same few positions of each at a time."""
    total = len(base.states)
    chunk = max(1, HEAD_LOGITS[default_device().type] // words)
    with bar("comparing", total) as advance:
        for start in range(0, total, chunk):
            stop = min(start + chunk, total)
            left = base.head(base.states[start:stop])
            right = tuned.head(tuned.states[start:stop]).to(left.device)
            yield slice(start, stop), left, right
            advance(stop - start)


def _check_finite(result: torch.Tensor, *sides: tuple[Reading, torch.Tensor]) -> None:
    if bool(result.isfinite().all()):
        return
    for reading, logits in sides:
        if not bool(logits.isfinite().all()):
            raise InputError(f"{reading.path}: the model's logits are not finite; its weights are damaged")
    raise InputError(f"{sides[0][0].path} and {sides[1][0].path}: the divergence of their logits overflows")
