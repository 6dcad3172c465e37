"""Which tensor of one checkpoint is which of another, told from their names.

Knows names only, not shapes, types or weights. Names match as they are, or without what wrappers put into them where
only one side has it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from knowshift.weights.regions import classify, unwrapped
from knowshift.weights.strict import quoted

_INPUT_EMBEDDINGS = tuple(
    f"{name}.weight" for name in ("embed_tokens", "wte", "embed_in", "tok_embeddings", "word_embeddings", "shared")
)
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")


@dataclass(frozen=True, slots=True)
class Match:
    """How two checkpoints' names belong together.

    Attributes:
        partner: base's name for each tuned name, in the tuned order.
        missing: names of base without a partner.
        extra: tuned names without a partner.
        notes: on tied heads, for the user.
    """

    partner: dict[str, str]
    missing: list[str]
    extra: list[str]
    notes: list[str]


def match(base: Iterable[str], tuned: Iterable[str]) -> Match:
    """Match names. Stored constants such as causal masks are no weights and are passed over.

    A head that only one side stores is no fault: the other ties it to its input embeddings. The tuned model's is
    then compared with those of base.
    """
    left = [name for name in base if classify(name).kind != "buffer"]
    right = [name for name in tuned if classify(name).kind != "buffer"]
    known = set(left)
    partner = {name: name for name in right if name in known}
    bare: dict[str, list[str]] = {}
    for name in left:
        if name not in partner:
            bare.setdefault(unwrapped(name), []).append(name)
    embeddings = next((name for name in left if unwrapped(name) in _INPUT_EMBEDDINGS), None)
    extra: list[str] = []
    notes: list[str] = []
    for name in right:
        if name in partner:
            continue
        candidates = bare.get(unwrapped(name), [])
        if len(candidates) == 1:
            partner[name] = candidates[0]
            del bare[unwrapped(name)]
        elif unwrapped(name) in _HEADS and embeddings is not None:
            partner[name] = embeddings
            notes.append(f"{quoted(name)} is compared with {quoted(embeddings)}, to which base ties it")
        else:
            extra.append(name)
    missing = [name for names in bare.values() for name in names]
    heads = [name for name in missing if unwrapped(name) in _HEADS]
    notes += [f"{quoted(name)} of base has no counterpart: the tuned model ties it" for name in heads]
    ordered = {name: partner[name] for name in right if name in partner}
    return Match(ordered, [name for name in missing if name not in heads], extra, notes)


def listed(names: list[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    shown = ", ".join(quoted(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"tensor{'s' if len(names) > 1 else ''} {shown}{more}"
