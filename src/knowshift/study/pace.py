"""How far a study is and how long the rest takes, in one line on a terminal; silence anywhere else.

The rest is reckoned from the cells that are done: each of the others takes as long as those of its kind and size did
on average. Before one of every kind that is left is done nothing is promised.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn

from knowshift.progress import console
from knowshift.study.cell import Cell
from knowshift.study.index import Standing

SHOW_SECONDS = 0.2


class Pace:
    """The line, and what it says."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._shown = 0.0
        columns = (TextColumn("study"), BarColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._line = self._progress.add_task("", total=None)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The line is there within the block."""
        with self._progress:
            yield

    def show(self, state: Mapping[str, Standing], cells: Mapping[str, Cell]) -> None:
        """Say how things stand."""
        if not console.is_terminal or time.monotonic() - self._shown < SHOW_SECONDS:
            return
        self._shown = time.monotonic()
        standing = {key: state[key] for key in cells}
        counts = {name: sum(one.state == name for one in standing.values()) for name in ("done", "running", "failed")}
        said = [f"{count} {name}" for name, count in counts.items() if count]
        left = remaining(standing, cells, counts["running"])
        said.append(f"of {len(cells)}" + (f", about {spoken(left)} left" if left else ""))
        self._progress.update(self._line, total=len(cells), completed=counts["done"], description=", ".join(said))


def remaining(state: Mapping[str, Standing], cells: Mapping[str, Cell], workers: int) -> float | None:
    """Seconds until all cells are done that are not; None while a kind is left of which none is done."""
    took: dict[tuple[str, object], list[float]] = defaultdict(list)
    kinds: dict[str, list[float]] = defaultdict(list)
    for key, standing in state.items():
        if standing.state == "done" and standing.seconds is not None:
            took[cells[key].kind, cells[key].labels.get("size")].append(standing.seconds)
            kinds[cells[key].kind].append(standing.seconds)
    left = 0.0
    for key, standing in state.items():
        if standing.state not in ("waiting", "running"):
            continue
        known = took.get((cells[key].kind, cells[key].labels.get("size"))) or kinds.get(cells[key].kind)
        if not known:
            return None
        left += sum(known) / len(known) * (0.5 if standing.state == "running" else 1)
    return left / max(workers, 1)


def spoken(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
