"""Some files out of a folder, a tar (plain or gzip) or a zip archive, without unpacking anything to disk.

Knows containers, not contents. An archive is somebody else's: names that lead outside are passed over, a link in
the place of a file is refused, and sizes are bounded, so that neither a hostile name nor a bomb does harm.
"""

import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from knowshift.errors import InputError

MEMBER_LIMIT = 64 << 20
ARCHIVE_LIMIT = 1 << 30
_TOO_MUCH = f"unpacks to more than {ARCHIVE_LIMIT >> 20} MiB; this is not the data set"

# What a damaged archive makes the standard library raise, beside the errors of its own kind.
DAMAGE = (EOFError, OSError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, struct.error)

# The name under which a member is wanted, or None.
Wanted = Callable[[PurePosixPath], str | None]


def read_members(path: Path, wanted: Wanted) -> dict[str, bytes]:
    """The contents of every wanted file, by the name ``wanted`` gives it.

    Args:
        path: a folder, whose files are looked for there and one level down, or an archive.
        wanted: from a file's path inside ``path`` to the name it is wanted under; None passes it over.

    Raises:
        InputError: naming archive and member: no such file, not an archive, damaged, a link, too large, or one
            name for two files that differ.
    """
    found: dict[str, tuple[str, bytes]] = {}
    total = 0
    for member, content in _files(path, wanted):
        total += len(content)
        if total > ARCHIVE_LIMIT:
            raise InputError(f"{path}: {_TOO_MUCH}")
        name = wanted(PurePosixPath(member))
        if name is None:
            continue
        if name in found and found[name][1] != content:
            raise InputError(f"{path}: {found[name][0]} and {member} are both there and differ")
        found[name] = (member, content)
    return {name: content for name, (_, content) in found.items()}


def _files(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        return _folder(path, wanted)
    try:
        with path.open("rb") as handle:
            magic = handle.read(4)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file or folder") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return _zip(path, wanted) if magic.startswith(b"PK") else _tar(path, wanted, packed=magic.startswith(b"\x1f\x8b"))


def _folder(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Three levels are enough for ``dataset/train/P17.train.json``; a large home folder is not walked through."""
    for pattern in ("*", "*/*", "*/*/*"):
        for file in sorted(path.glob(pattern)):
            member = file.relative_to(path).as_posix()
            if wanted(PurePosixPath(member)) is None or not file.is_file():
                continue
            _check_size(path, member, file.stat().st_size)
            try:
                yield member, file.read_bytes()
            except OSError as error:
                raise InputError(f"{file}: cannot be read: {error.strerror}") from error


def _tar(path: Path, wanted: Wanted, *, packed: bool) -> Iterator[tuple[str, bytes]]:
    member = "the beginning"
    try:
        with path.open("rb") as raw:
            stream: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if packed else raw
            bounded = _Bounded(stream, path)
            with tarfile.open(fileobj=bounded, mode="r|") as archive:
                for info in archive:
                    member = info.name
                    if not _inside(member) or wanted(PurePosixPath(member)) is None:
                        continue
                    if not info.isfile():
                        raise InputError(f"{path}: {member} is not a plain file")
                    _check_size(path, member, info.size)
                    content = archive.extractfile(info)
                    assert content is not None, "a plain file has contents"
                    yield member, content.read()
            while bounded.read(1 << 20):  # to the end, where gzip keeps its checksum
                pass
    except (tarfile.TarError, *DAMAGE) as error:
        if member == "the beginning" and not packed:
            raise InputError(f"{path}: neither a folder nor a .tar.gz, .tar or .zip archive") from error
        raise InputError(f"{path}: damaged at or after {member}: {error}") from error


def _zip(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    member = "its table of contents"
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir() or not _inside(info.filename) or wanted(PurePosixPath(info.filename)) is None:
                    continue
                member = info.filename
                mode = info.external_attr >> 16
                if mode and not (stat.S_ISREG(mode) or stat.S_IFMT(mode) == 0):
                    raise InputError(f"{path}: {member} is not a plain file")
                _check_size(path, member, info.file_size)
                with archive.open(info) as content:
                    yield member, content.read(MEMBER_LIMIT + 1)
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise InputError(f"{path}: damaged or not readable at {member}: {error}") from error


def _inside(member: str) -> bool:
    parts = PurePosixPath(member)
    return not parts.is_absolute() and ".." not in parts.parts


def _check_size(path: Path, member: str, size: int) -> None:
    if size > MEMBER_LIMIT:
        raise InputError(f"{path}: {member} is {size >> 20} MiB; at most {MEMBER_LIMIT >> 20} MiB are expected")


class _Bounded(io.RawIOBase):
    """A stream that ends in an error where an archive of this kind should have ended long before."""

    def __init__(self, stream: io.BufferedIOBase, path: Path) -> None:
        self._stream, self._path, self._left = stream, path, ARCHIVE_LIMIT

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise InputError(f"{self._path}: {_TOO_MUCH}")
        return data
