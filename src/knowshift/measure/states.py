"""A causal language model in two halves: final hidden states, kept on disk, and the head that reads them.

The states are small (tokens x hidden size), the logits are not (tokens x vocabulary). So two models need
never be in memory together, and logits exist for a few positions at a time.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from knowshift.errors import InputError
from knowshift.generate.packed import as_texts, batches_of, can_pack, most_alike, pack, packing, rounding, tokens_apart
from knowshift.measure.passages import Passage, batches
from knowshift.measure.sharing import Layout
from knowshift.progress import bar

Head = Callable[[torch.Tensor], torch.Tensor]

# Of the tokens, those that need not be read a second time, from which on passages are read packed.
WORTH_PACKING = 0.1


@torch.inference_mode()
def final_states(
    model: Any,
    passages: Sequence[Passage],
    file: Path,
    *,
    batch_tokens: int,
    label: str,
    shared: Layout | None = None,
) -> torch.Tensor:
    """Run the model up to its head.

    What passages begin with in common is read once, where there is enough of it and the architecture allows it
    (``packed``). Otherwise they are padded on the right and read without a mask: in a causal model nothing looks to
    the right, so padding cannot touch what stands before it, and attention without a mask is faster.

    Args:
        model: a causal language model of transformers.
        passages: what it reads.
        file: where the states are kept; it must outlive them.
        batch_tokens: tokens read together, padding included.
        label: shown with the progress.
        shared: what the passages share, by ``sharing.layout``: states there are kept once.

    Returns:
        (rows, hidden) on the CPU, mapped from ``file``, in the number type of the model: the measured positions in
        the order of ``passages``, or the rows of ``shared``.
    """
    skipped: Sequence[int] = (0,) * len(passages)
    starts: Sequence[int] = (0, *accumulate(passage.kept for passage in passages))
    if shared is not None:
        skipped, starts = shared.skipped, shared.starts
    states, reads = torch.empty(0), [passage.ids for passage in passages]
    through = _packed if _worth_packing(model, reads) else _padded
    with bar(label, sum(map(len, reads))) as advance:
        for index, hidden in through(model, reads, batch_tokens):
            if not len(states):
                states = _mapped(file, starts[-1], hidden.shape[-1], hidden.dtype)
            states[starts[index] : starts[index + 1]] = hidden[len(hidden) - passages[index].kept + skipped[index] :]
            advance(len(reads[index]))
    return states


def _padded(model: Any, reads: Sequence[tuple[int, ...]], batch_tokens: int) -> Iterator[tuple[int, torch.Tensor]]:
    """The number of each text and its states, (length, hidden) on the CPU."""
    device = entry_device(model)
    for members in batches(reads, batch_tokens):
        width = max(len(reads[index]) for index in members)
        rows = [[*reads[index], *[0] * (width - len(reads[index]))] for index in members]
        hidden = _hidden(model, input_ids=torch.tensor(rows, device=device))
        for row, index in zip(hidden, members, strict=True):
            yield index, row[: len(reads[index])]


def _packed(model: Any, reads: Sequence[tuple[int, ...]], batch_tokens: int) -> Iterator[tuple[int, torch.Tensor]]:
    """As ``_padded``, in another order."""
    device = entry_device(model)
    for members in batches_of(reads, batch_tokens):
        packed = pack([reads[index] for index in members])
        with packing(model), as_texts(packed.to(device)):
            inputs = {"input_ids": packed.ids.to(device), "position_ids": packed.positions.to(device)}
            hidden = _hidden(model, **inputs)[0]
        for places, index in zip(packed.places, members, strict=True):
            yield index, hidden[places[: len(reads[index])]]


def _hidden(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    output = model.base_model(**inputs, use_cache=False)
    if not hasattr(output, "last_hidden_state"):
        raise InputError(f"{type(model).__name__}: this architecture has no final hidden states to measure drift on")
    hidden: torch.Tensor = output.last_hidden_state.cpu()
    return hidden


def _worth_packing(model: Any, reads: Sequence[tuple[int, ...]]) -> bool:
    """Whether texts have enough in common, and two of them, packed, have the states they have alone."""
    texts = sorted(reads)
    total = sum(map(len, reads))
    if total - tokens_apart(texts) < WORTH_PACKING * total or not can_pack(model, max(map(len, reads))):
        return False
    if getattr(model.base_model, "_compiled_call_impl", None) is not None:
        return False  # the compiled program would be made anew for every layout
    alike = most_alike(texts)
    alone, together = (dict(read(model, alike, 2 * max(map(len, alike)))) for read in (_padded, _packed))
    bound = rounding(alone[0].dtype)
    apart = [float((together[n].float() - alone[n].float()).norm() / alone[n].float().norm()) for n in alone]
    return max(apart) < bound


@torch.inference_mode()
def take_head(model: Any) -> Head:
    """The second half of ``model`` as a function from (n, hidden) states to (n, vocabulary) logits.

    It is the model's own forward pass with the first half replaced by given states, so whatever the
    architecture does with its logits (soft-capping, scaling, a bias) is done here too. The weights of the
    first half are released: the model cannot be used for anything else afterwards.

    Raises:
        InputError: for an architecture that cannot be divided so; every model is tried on two tokens first.
    """
    name, device = type(model).__name__, entry_device(model)
    model.base_model._compiled_call_impl = None  # what was compiled would go on running the first half
    probe = torch.zeros(1, 2, dtype=torch.long, device=device)
    expected = model(input_ids=probe, use_cache=False).logits[0]
    output = model.base_model(input_ids=probe, use_cache=False)
    given = output.last_hidden_state

    def states_as_given(*_: Any, **__: Any) -> Any:
        return type(output)(last_hidden_state=given)

    # Some architectures call the decoder inside their base model and not the base model itself.
    for half in {model.base_model, model.get_decoder()}:
        half.forward = states_as_given

    @torch.inference_mode()
    def head(states: torch.Tensor) -> torch.Tensor:
        nonlocal given
        given = states.to(expected.device)[None]
        ids = torch.zeros(given.shape[:2], dtype=torch.long, device=device)
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
        return logits

    if not torch.allclose(head(given[0]), expected, rtol=1e-2, atol=1e-2, equal_nan=True):
        raise InputError(f"{name}: the head of this architecture cannot be run apart from its body")
    _release(model)
    return head


def entry_device(model: Any) -> torch.device:
    """Where a model wants its tokens: beside its embeddings, or where accelerate brings these when they are needed."""
    embeddings = model.get_input_embeddings()
    hook = getattr(embeddings, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    found = torch.device(device) if device is not None else next(embeddings.parameters()).device
    return torch.device("cpu") if found.type == "meta" else found  # hooks that tell nothing move their input themselves


def _release(model: Any) -> None:
    """Free the weights of the first half that the head does not share (a tied embedding is shared)."""
    embedding = model.get_output_embeddings()
    kept = {id(parameter) for parameter in embedding.parameters()} if embedding is not None else set()
    for parameter in model.base_model.parameters():
        if id(parameter) not in kept and parameter.device.type != "meta":
            parameter.data = torch.empty(0, dtype=parameter.dtype, device=parameter.device)
    for module in model.base_model.modules():
        # What accelerate keeps in the CPU's memory for a module on another device.
        weights = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
        loader = getattr(weights, "dataset", {})
        stored = getattr(loader, "state_dict", loader)
        for name in [name for name in stored if name.startswith(f"{model.base_model_prefix}.")]:
            del stored[name]


def _mapped(file: Path, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    size = rows * width * dtype.itemsize
    # Writing to a map of a full disk kills the process without a word.
    if shutil.disk_usage(file.parent).free < size:
        raise InputError(
            f"{file.parent}: {size / 1e9:.1f} GB are needed here for hidden states; set TMPDIR to a larger disk"
        )
    return torch.from_file(str(file), shared=True, size=rows * width, dtype=dtype).view(rows, width)
