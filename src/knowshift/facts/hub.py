"""Facts from a Hugging Face dataset: ``hf:NAME[:CONFIG][@SPLIT]``, NAME an id on the hub or a folder (``./qa``).

Loading is the business of the ``datasets`` library; no code of a dataset is ever run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knowshift.errors import InputError, missing_extra
from knowshift.facts.columns import KNOWN
from knowshift.facts.fact import Fact, build


def read_hub(spec: str) -> list[Fact]:
    """The facts of a dataset; each is of the dataset's split it comes from, unless its row names one.

    Args:
        spec: what follows ``hf:``. Without ``@SPLIT`` every split is read.

    Raises:
        InputError: if there is no such dataset, configuration or split, it cannot be had, or a row is no fact.
    """
    name, config, split = _parse(spec)
    splits = _load(name, config, split)
    return build(f"hf:{spec}", _rows(f"hf:{spec}", splits))


def _parse(spec: str) -> tuple[str, str | None, str | None]:
    """A folder may hold ``@`` and ``:`` in its path, so only what comes after the last ``/`` is taken apart."""
    folder, slash, last = spec.rstrip("/").rpartition("/")
    rest, _, split = last.partition("@")
    base, _, config = rest.partition(":")
    if not base:
        raise InputError(f"hf:{spec}: a dataset is named as hf:NAME, hf:NAME:CONFIG or hf:NAME@SPLIT")
    return f"{folder}{slash}{base}", config or None, split or None


def _load(name: str, config: str | None, split: str | None) -> dict[str, Any]:
    """The dataset's splits by name."""
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", "train") from error

    folder = Path(name).expanduser()
    local = folder.is_dir()
    if not local and name.startswith((".", "/", "~")):
        raise InputError(f"hf:{name}: no such folder")
    saved = local and any((folder / mark).is_file() for mark in ("dataset_dict.json", "state.json"))
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if saved:
            loaded = datasets.load_from_disk(str(folder))
        else:
            loaded = datasets.load_dataset(str(folder) if local else name, config)
    except Exception as error:  # the library raises what its many backends raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"hf:{name}: cannot be loaded: {reason}") from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    splits = dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or ""): loaded}
    if split is None:
        return splits
    if split not in splits:
        raise InputError(f"hf:{name}: no split {split!r} (splits here: {', '.join(splits)})")
    return {split: splits[split]}


def _rows(source: str, splits: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for split, table in splits.items():
        names = [name for name in table.column_names if name.strip().casefold() in KNOWN]
        if not names:
            raise InputError(f"{source}: no column of facts here (question, answers, ...)")
        own = {} if any(name.strip().casefold() == "split" for name in names) else {"split": split}
        for index, row in enumerate(table.select_columns(names)):
            where = f"[{split}, {index}]" if split else f"[{index}]"
            yield where, own | row
