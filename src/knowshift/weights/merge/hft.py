"""Half reset, after HFT (half fine-tuning, arXiv 2404.18466): half of the matrices of every block go back to base.

HFT freezes half of the parameters while it trains; the experiment that it grew from resets half of a tuned model.
The half is drawn at random within each block and category: two of the four attention matrices; of the three
feed-forward matrices two in a random half of the blocks and one in the others; half of the norms. What lies outside
of blocks (embeddings, head, last norm) stays tuned.

Llama's categories are those that descriptions of the paper and other code of it give. The general rule, which is
ours: a category is a block's attention, feed-forward part, norms, or anything else; what is drawn is a weight with
its bias; of an odd number the larger half goes back in a random half of the blocks that have an odd number, the
smaller in the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from knowshift.seeds import derive
from knowshift.weights.merge.method import Make
from knowshift.weights.merge.reset import resetting
from knowshift.weights.pairing import Pair
from knowshift.weights.regions import Kind, Place

Category = tuple[Kind, int]


@dataclass(frozen=True, slots=True)
class Hft:
    """Set a random half of the matrices of every block back to base, bit for bit.

    Attributes:
        inverse: set the other half back; what lies outside of blocks stays tuned.
    """

    inverse: bool = False

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Make:
        """The new bits of a tile."""
        places = {pair.name: pair.place for pair in pairs}
        drawn = half(places, seed)
        return resetting([pair.place.layer is not None and (pair.name in drawn) != self.inverse for pair in pairs])


def half(places: Mapping[str, Place], seed: int) -> set[str]:
    """The names of a random half of the tensors of every block.

    Args:
        places: where each tensor belongs, by name.
        seed: what is drawn depends on it and on the names alone.
    """
    units: dict[Category, set[str]] = {}
    for name, place in places.items():
        if place.layer is not None:
            units.setdefault((place.kind, place.layer), set()).add(_unit(name))
    chosen = {
        (category, unit)
        for category, count in _counts(units, seed).items()
        for unit in _drawn(units[category], seed, *category)[:count]
    }
    return {
        name
        for name, place in places.items()
        if place.layer is not None and ((place.kind, place.layer), _unit(name)) in chosen
    }


def _unit(name: str) -> str:
    """A weight and its bias have one name."""
    return name.removesuffix(".weight").removesuffix(".bias")


def _counts(units: dict[Category, set[str]], seed: int) -> dict[Category, int]:
    """How many of each category go back."""
    counts = {category: len(names) // 2 for category, names in units.items()}
    for kind in dict.fromkeys(kind for kind, _ in units):
        odd = [str(layer) for (own, layer), names in units.items() if own == kind and len(names) % 2]
        for layer in _drawn(odd, seed, kind)[: len(odd) // 2]:
            counts[kind, int(layer)] += 1
    return counts


def _drawn(names: "set[str] | list[str]", seed: int, *place: object) -> list[str]:
    """``names`` in a random order that depends on nothing but the seed and them."""
    return sorted(names, key=lambda name: (derive(seed, "hft", *place, name), name))
