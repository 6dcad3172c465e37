"""What a patch says of itself: the pair it comes from, and every tensor with the digests of both sides.

Knows what is consistent in itself; whether it fits a file or a model is for others to check.
"""

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from knowshift.weights.header import TYPE_BITS
from knowshift.weights.strict import quoted

MAX_BLOCK = 1 << 22  # elements
MAX_BLOCKS = 1 << 24  # two trillion weights

Size = Annotated[int, Field(ge=0, lt=1 << 63)]
Number = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Entry(_Strict):
    """One tensor of the tuned checkpoint.

    Attributes:
        name, dtype, shape: as stored.
        changed: how many of its elements the patch changes.
        tuned, restored: the digest of its content on either side, see ``contents``.
    """

    name: str
    dtype: str
    shape: Annotated[tuple[Size, ...], Field(max_length=16)]
    changed: Size
    tuned: Digest
    restored: Digest

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @model_validator(mode="after")
    def _consistent(self) -> "Entry":
        if self.dtype not in TYPE_BITS or (self.changed and TYPE_BITS[self.dtype] < 8):
            raise ValueError(f"tensor {quoted(self.name)} has the type {quoted(self.dtype)}")
        if self.size >= 1 << 63 or self.changed > self.size:
            raise ValueError(f"tensor {quoted(self.name)} changes {self.changed} of {self.size} elements")
        if not self.changed and self.tuned != self.restored:
            raise ValueError(f"tensor {quoted(self.name)} is unchanged and has two digests")
        return self


class Origin(_Strict):
    """Where a patch comes from.

    Attributes:
        base, tuned: the two models, as the user named them.
        settings: what was restored, by name, for people to read.
        command: the command line that made it.
        card: the model card of the restored checkpoint.
    """

    base: str
    tuned: str
    settings: dict[str, str | Number | float | None]
    command: tuple[str, ...]
    card: str


class Manifest(_Strict):
    """What a patch is.

    Attributes:
        origin: where it comes from.
        written_by: the version of this software.
        block: elements of a block; the last of a tensor may have fewer.
        tensors: all of the tuned checkpoint's, changed or not; those changed in the order of their blocks.
    """

    origin: Origin
    written_by: str
    block: Annotated[int, Field(ge=1, le=MAX_BLOCK)]
    tensors: tuple[Entry, ...]

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        if len({entry.name for entry in self.tensors}) < len(self.tensors):
            raise ValueError("a tensor is named twice")
        if sum(self.blocks(entry) for entry in self.changed) > MAX_BLOCKS:
            raise ValueError(f"more than {MAX_BLOCKS} blocks")
        return self

    @property
    def changed(self) -> list[Entry]:
        """The tensors that the patch changes."""
        return [entry for entry in self.tensors if entry.changed]

    def blocks(self, entry: Entry) -> int:
        """How many blocks a tensor has."""
        return -(-entry.size // self.block)
