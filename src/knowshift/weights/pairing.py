"""Two checkpoints of one architecture, tensor by tensor.

Knows names, shapes and types; reads no weights until asked for a stretch of one tensor.
"""

from dataclasses import dataclass
from math import prod

from knowshift.errors import InputError
from knowshift.weights.bits import Bits, recast
from knowshift.weights.checkpoint import FLOATS, Checkpoint
from knowshift.weights.experts import forms_differ, rearranged
from knowshift.weights.header import Tensor
from knowshift.weights.matching import listed, match
from knowshift.weights.regions import Place, classify, selector
from knowshift.weights.strict import quoted

_COUNTERS = ("BOOL", "I64")  # bookkeeping beside the weights, never weights
_UNPACKED = ("F64", "C64")  # types that are no result of quantization
_ROUNDED = {("F32", "BF16"), ("F32", "F16"), ("F16", "BF16"), ("BF16", "F16")}


@dataclass(frozen=True, slots=True)
class Pair:
    """One tensor in both checkpoints.

    Attributes:
        name: its name in the tuned checkpoint.
        place: where it belongs.
        base, tuned: where its bytes lie in each. Where the vocabulary was resized the two differ in rows.
        base_checkpoint, tuned_checkpoint: the checkpoints they lie in.
    """

    name: str
    place: Place
    base: Tensor
    tuned: Tensor
    base_checkpoint: Checkpoint
    tuned_checkpoint: Checkpoint

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is compared: the rows that both sides have, which come first in each."""
        if self.base.shape == self.tuned.shape:
            return self.tuned.shape
        return (min(self.base.shape[0], self.tuned.shape[0]), *self.tuned.shape[1:])

    @property
    def size(self) -> int:
        """Number of elements compared: the first ones of either side."""
        return prod(self.shape)

    def base_bits(self, start: int, stop: int) -> Bits:
        """Base's elements in the tuned checkpoint's type (the stored bits themselves where both agree)."""
        return recast(self.base_checkpoint.read(self.base.name, start, stop), self.base.dtype, self.tuned.dtype)

    def tuned_bits(self, start: int, stop: int) -> Bits:
        """The tuned checkpoint's stored bits."""
        return self.tuned_checkpoint.read(self.name, start, stop)

    def prefetch(self, start: int, stop: int) -> None:
        """Ask the system to have both sides of a stretch in memory soon."""
        self.base_checkpoint.prefetch(self.base.name, start, stop)
        self.tuned_checkpoint.prefetch(self.name, start, stop)


def pair(base: Checkpoint, tuned: Checkpoint, region: str = "all") -> tuple[list[Pair], list[str]]:
    """The tensors of ``region`` in both checkpoints, in the tuned checkpoint's order.

    Names are matched as ``matching.match`` says, experts whether stacked or not (``experts``). Embeddings and heads
    with more rows on one side, as after new tokens or padding, are compared in the rows that both have; the others
    stay as they are in the tuned model. Where types differ, base's values are compared, and put back, in the tuned
    type.

    Returns:
        The pairs, and notes for the user on tied heads, experts, rows without counterpart and differing types.

    Raises:
        InputError: naming the tensors that only one side has, that differ in shape, or whose type cannot be
            ranked; or the region if it is unknown or empty.
    """
    inside = selector(region)
    matched = match(base.tensors, tuned.tensors)
    mixed = forms_differ(matched.missing, matched.extra)
    arranged = rearranged(base, tuned, matched.missing, matched.extra)
    if arranged is not base:
        base, matched = arranged, match(arranged.tensors, tuned.tensors)
        matched.notes.append("base stores experts in another form: they are compared in the tuned model's")
    if matched.missing or matched.extra:
        raise InputError(_unmatched(base, tuned, matched.missing, matched.extra, mixed))
    notes = matched.notes
    pairs: list[Pair] = []
    casts: dict[tuple[str, str], list[str]] = {}
    for name, other in matched.partner.items():
        left, right, place = base.tensors[other], tuned.tensors[name], classify(name)
        wanted = inside(name) and not _bookkeeping(right, place)
        if left.shape != right.shape:
            notes.append(_resized(left, right, place, None if wanted else region))
        if not wanted:
            continue
        for tensor in (left, right):
            if tensor.dtype not in FLOATS:
                raise InputError(_refused(tensor))
        if left.dtype != right.dtype:
            casts.setdefault((left.dtype, right.dtype), []).append(name)
        pairs.append(Pair(name, place, left, right, base, tuned))
    if not sum(entry.size for entry in pairs):
        raise InputError(f"--region {region}: {tuned.folder} has no weights there")
    for (source, target), names in casts.items():
        rounded = "rounded to" if (source, target) in _ROUNDED else "exactly as"
        notes.append(f"{listed(names)}: stored as {source} in base, compared {rounded} {target}, the tuned type")
    return pairs, notes


def _bookkeeping(tensor: Tensor, place: Place) -> bool:
    """Counters and indices. Other integers are weights that were quantized, if they lie where weights do."""
    integer = tensor.dtype[0] in "IU" and place.layer is None and place.kind != "embedding"
    return place.kind == "buffer" or tensor.dtype in _COUNTERS or integer


def _resized(left: Tensor, right: Tensor, place: Place, outside_of: str | None) -> str:
    """The note on a tensor whose vocabulary was resized."""
    what = f"tensor {quoted(right.name)} has shape {quoted(list(left.shape))} in base and"
    what += f" {quoted(list(right.shape))} when tuned"
    same_rows = left.shape and right.shape and left.shape[1:] == right.shape[1:]
    if place.kind != "embedding" or not same_rows:
        raise InputError(f"{right.file}: {what}")
    if outside_of is not None:
        return f"{what}; it is outside of the region {outside_of} and stays tuned"
    common, more = sorted((left.shape[0], right.shape[0]))
    rest = "are new and stay tuned" if more == right.shape[0] else "of base have no counterpart"
    return f"{what}: the first {common} rows are compared, the other {more - common} {rest}"


def _unmatched(base: Checkpoint, tuned: Checkpoint, missing: list[str], extra: list[str], mixed: bool) -> str:
    for tensor in (*tuned.tensors.values(), *base.tensors.values()):
        # A quantized model differs in its tensors' names too, but that is not what is wrong with it.
        quantized = tensor.dtype not in (*FLOATS, *_UNPACKED)
        if quantized and not _bookkeeping(tensor, classify(tensor.name)):
            return _refused(tensor)
    faults = []
    if missing:
        faults.append(f"{listed(missing)} missing, which {base.folder} has")
    if extra:
        faults.append(f"{listed(extra)} not in {base.folder}")
    hint = ": an adapter that was not merged" if any(".lora_" in name for name in (*missing, *extra)) else ""
    if mixed:
        hint = (
            ": experts are stored one by one in one model and stacked in the other, in a way that does not fit: load "
        )
        hint += "both with one version of transformers and save them again"
    return f"{tuned.folder}: {'; '.join(faults)}{hint}"


def _refused(tensor: Tensor) -> str:
    kind = "" if tensor.dtype in _UNPACKED else ", a quantized type"
    how = "from_pretrained(folder, dtype='float32')" if tensor.dtype in _UNPACKED else "model.dequantize()"
    return (
        f"{tensor.file}: tensor {quoted(tensor.name)} is stored as {tensor.dtype}{kind}: only {', '.join(FLOATS)} "
        f"weights can be compared; convert the model first (in transformers: {how}, then save_pretrained)"
    )
