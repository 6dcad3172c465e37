"""Restore whole modules, in every block: is what is lost in the attention, or in the feed-forward part?

The restored elements' table by module (paper, section 5) says where large changes lie; this says whether the model
can do without them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from knowshift.errors import InputError
from knowshift.weights.merge.method import Make
from knowshift.weights.merge.reset import parts, resetting
from knowshift.weights.pairing import Pair


@dataclass(frozen=True, slots=True)
class Modules:
    """Set the named modules of every block back to base, bit for bit.

    Attributes:
        modules: names as in the table of ``diff``, such as ``down,o``: q, k, v, o, gate, up, down, or a tensor's
            own name where it has no such name. A weight and its bias go together.
        inverse: set everything of the region but these modules back.
    """

    modules: str = ""
    inverse: bool = False

    def __post_init__(self) -> None:
        if not self.modules:
            raise InputError("modules needs --modules, such as down,o")
        parts("--modules", self.modules)

    def prepare(self, pairs: Sequence[Pair], seed: int) -> Make:
        """The new bits of a tile."""
        wanted = set(parts("--modules", self.modules))
        known = dict.fromkeys(pair.place.module for pair in pairs)
        if lacking := sorted(wanted - known.keys()):
            raise InputError(f"--modules {self.modules}: there is no {lacking[0]!r}: the region has {', '.join(known)}")
        return resetting([(pair.place.module in wanted) != self.inverse for pair in pairs])
