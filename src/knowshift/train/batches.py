"""The last batch of an epoch, when several processes share it: no example counts twice.

Every process must have as many sequences as the others, so accelerate fills up an epoch's last batch from its
beginning. One process alone would train on what is left; so do several, if what was filled in is not learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator


def once(batches: Iterator[dict[str, Any]], accelerator: Accelerator, size: int, rest: int) -> Iterator[dict[str, Any]]:
    """The same batches, with no label in the rows that an epoch's last batch was filled up with.

    Args:
        batches: of accelerate's data loader.
        accelerator: whose state says which batch is the last. How many rows of it are an epoch's own it forgets
            where an epoch is resumed in its middle.
        size: rows that a process has in a batch. Batches that are laid out otherwise, as with padding-free training,
            stay as they are.
        rest: of all processes, the rows of the last batch that are an epoch's own; 0 where all are.
    """
    state = accelerator.gradient_state
    for batch in batches:
        filled = accelerator.num_processes > 1 and state.end_of_dataloader and rest > 0
        if filled and len(batch["labels"]) == size:
            labels = batch["labels"].clone()
            labels[max(0, rest - accelerator.process_index * size) :] = -100
            batch = {**batch, "labels": labels}
        yield batch
