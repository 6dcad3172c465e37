"""Two checkpoints of one architecture, tensor by tensor.

Knows names, shapes and types; reads no weights until asked for a stretch of one tensor.
"""

from dataclasses import dataclass

from knowshift.errors import InputError
from knowshift.weights.bits import Bits, recast
from knowshift.weights.checkpoint import FLOATS, Checkpoint
from knowshift.weights.header import Tensor
from knowshift.weights.regions import Place, classify, kinds, unwrapped

_INPUT_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "tok_embeddings.weight")
_HEADS = ("lm_head.weight", "embed_out.weight")
_COUNTERS = ("BOOL", "I64", "I32")  # bookkeeping beside the weights, never weights


@dataclass(frozen=True, slots=True)
class Pair:
    """One tensor in both checkpoints.

    Attributes:
        name: its name in the tuned checkpoint.
        place: where it belongs.
        base, tuned: where its bytes lie in each.
        base_checkpoint, tuned_checkpoint: the checkpoints they lie in.
    """

    name: str
    place: Place
    base: Tensor
    tuned: Tensor
    base_checkpoint: Checkpoint
    tuned_checkpoint: Checkpoint

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.tuned.size

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

    Names match as they are, or without wrapper prefixes (``model.``) where only one side has them. A head
    that base does not store because it is tied to the input embeddings is compared with those. Stored
    constants such as causal masks are no weights and are passed over.

    Returns:
        The pairs, and notes for the user on what differs outside of the region or in type.

    Raises:
        InputError: naming the tensors that only one side has, that differ in shape, or whose type cannot be
            ranked; or the region if it is empty.
    """
    wanted = kinds(region)
    partner, missing, extra, notes = _match(base, tuned)
    if missing:
        raise InputError(f"{tuned.folder}: {_listed(missing)} missing, which {base.folder} has")
    if extra:
        raise InputError(f"{tuned.folder}: {_listed(extra)} not in {base.folder}")
    pairs: list[Pair] = []
    casts: dict[tuple[str, str], list[str]] = {}
    for name, other in partner.items():
        left, right, place = base.tensors[other], tuned.tensors[name], classify(name)
        inside = place.kind in wanted and right.dtype not in _COUNTERS
        if left.shape != right.shape:
            what = f"tensor {name!r} has shape {list(left.shape)} in base and {list(right.shape)} when tuned"
            if inside or place.kind != "embedding":
                raise InputError(f"{right.file}: {what}")
            notes.append(f"{what}; it is outside of the region {region}")
        if not inside:
            continue
        for tensor in (left, right):
            if tensor.dtype not in FLOATS:
                raise InputError(
                    f"{tensor.file}: tensor {tensor.name!r} is stored as {tensor.dtype}: only "
                    f"{', '.join(FLOATS)} weights can be compared"
                )
        if left.dtype != right.dtype:
            casts.setdefault((left.dtype, right.dtype), []).append(name)
        pairs.append(Pair(name, place, left, right, base, tuned))
    if not sum(entry.size for entry in pairs):
        raise InputError(f"--region {region}: {tuned.folder} has no weights there")
    for (source, target), names in casts.items():
        notes.append(f"{_listed(names)}: stored as {source} in base, compared as {target}, the tuned type")
    return pairs, notes


def _match(base: Checkpoint, tuned: Checkpoint) -> tuple[dict[str, str], list[str], list[str], list[str]]:
    """Tuned names to base names, base names without a partner, tuned names without one, and notes."""
    left = [name for name in base.tensors if classify(name).kind != "buffer"]
    right = [name for name in tuned.tensors if classify(name).kind != "buffer"]
    partner = {name: name for name in right if name in base.tensors}
    taken = set(partner.values())
    bare: dict[str, list[str]] = {}
    for name in left:
        if name not in taken:
            bare.setdefault(unwrapped(name), []).append(name)
    embeddings = {unwrapped(name): name for name in base.tensors if unwrapped(name) in _INPUT_EMBEDDINGS}
    extra: list[str] = []
    notes: list[str] = []
    for name in right:
        if name in partner:
            continue
        candidates = bare.get(unwrapped(name), [])
        if len(candidates) == 1:
            partner[name] = candidates[0]
            del bare[unwrapped(name)]
        elif unwrapped(name) in _HEADS and embeddings:
            partner[name] = next(iter(embeddings.values()))
            notes.append(f"{name!r} is compared with {partner[name]!r}, to which base ties it")
        else:
            extra.append(name)
    missing = [name for names in bare.values() for name in names]
    heads = [name for name in missing if unwrapped(name) in _HEADS]
    notes += [f"{name!r} of base has no counterpart: the tuned model ties it" for name in heads]
    ordered = {name: partner[name] for name in right if name in partner}
    return ordered, [name for name in missing if name not in heads], extra, notes


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"tensor{'s' if len(names) > 1 else ''} {shown}{more}"
