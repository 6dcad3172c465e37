"""EntityQuestions from its authors' public download into the user's cache.

The authors publish no checksum. What is pinned is therefore what the archive says, not how it is packed: the number
of its rows and a digest over all of them (``entityquestions.content``), taken from a copy of the published files.
``--sha256`` pins the file itself for those who know it.
"""

import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from knowshift.errors import InputError
from knowshift.facts.download import Unreachable, check_sha256, download, forget
from knowshift.facts.entityquestions import content
from knowshift.files import digest_file, make_folder
from knowshift.models.cache import cache_folder

URL = "https://nlp.cs.princeton.edu/projects/entity-questions/dataset.zip"
ROWS = 122_754
CONTENT = "a8ea9b3f9c93c107602eaf80eb378a49ee5d5f869f9d204b8965aa2420d26996"
BY_HAND = f"download {URL} on a connected machine and pass entityquestions:PATH"


@dataclass(frozen=True, slots=True)
class Fetched:
    """An archive that was fetched and checked.

    Attributes:
        path: where it is.
        rows: questions in it, before any filter.
        sha256: of the file.
        new: whether it came just now.
    """

    path: Path
    rows: int
    sha256: str
    new: bool


def place() -> Path:
    """Where the archive is kept, fetched or not; a zip or a tar.gz, so the name does not say."""
    return cache_folder() / "facts" / "entityquestions.archive"


def fetched() -> Path:
    """The archive that was fetched.

    Raises:
        InputError: if it was not.
    """
    if not place().is_file():
        raise InputError(
            "EntityQuestions has not been fetched: run `knowshift facts fetch entityquestions`, "
            "or name a copy as entityquestions:PATH (folder, tar.gz or zip)"
        )
    return place()


def fetch(name: str, out: Path | None = None, *, url: str | None = None, sha256: str | None = None) -> Fetched:
    """``knowshift facts fetch``: the set of that name; there is one.

    Raises:
        InputError: as ``fetch_entityquestions``, or if there is nothing of that name to fetch.
    """
    if name != "entityquestions":
        raise InputError(f"{name}: nothing of that name can be fetched (entityquestions)")
    return fetch_entityquestions(out, url=URL if url is None else url, sha256=sha256)


def fetch_entityquestions(out: Path | None = None, *, url: str = URL, sha256: str | None = None) -> Fetched:
    """Download the archive, check it, and put it in place; an archive that is there and right is left alone.

    Args:
        out: a file name instead of the cache.
        url: another address of the same data, as zip or tar.gz.
        sha256: what the file's SHA-256 must be.

    Raises:
        InputError: if it cannot be had (what came is kept, the same command goes on), cannot be written, or is not
            the data set as published (nothing is kept).
    """
    target = out or place()
    if target.is_dir():
        raise InputError(f"--out {target}: this is a folder; a file name is expected")
    make_folder(target.parent)
    # In the cache two processes may meet; beside a file that the user names no lock is left lying.
    with nullcontext() if out else FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists():
            try:
                return _checked(target, str(target), sha256, new=False)
            except InputError as error:
                if out:
                    raise InputError(f"--out {out} is there already and is something else: {error}") from error
        return _fetch(target, url, sha256)


def _fetch(target: Path, url: str, sha256: str | None) -> Fetched:
    partial = target.with_name(f"{target.name}.partial")
    try:
        download(url, partial, label="Fetching EntityQuestions (bytes)")
    except Unreachable as error:
        raise InputError(f"EntityQuestions cannot be fetched now ({error}): try again later, or {BY_HAND}") from error
    try:
        checked = _checked(partial, url, sha256, new=True)
    except InputError:
        forget(partial)
        raise
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)
    forget(partial)
    return replace(checked, path=target)


def _checked(path: Path, name: str, sha256: str | None, *, new: bool) -> Fetched:
    """Raises InputError, speaking of ``name``, unless the archive at ``path`` says what EntityQuestions says."""
    if sha256:
        try:
            check_sha256(path, sha256)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    try:
        rows, digest = content(path)
    except InputError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{name}: this is not EntityQuestions as published: {said}") from error
    if (rows, digest) != (ROWS, CONTENT):
        raise InputError(
            f"{name}: this is not EntityQuestions as published: {rows:,} rows with digest {digest[:16]}, expected "
            f"{ROWS:,} with {CONTENT[:16]}; to use it all the same, pass entityquestions:PATH"
        )
    return Fetched(path, rows, digest_file(path), new)
