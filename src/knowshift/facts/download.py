"""A file from the web, whole or not at all: resumed where it broke off, if the server still has the same file.

Knows HTTP and one file, not what is in it. What has come so far waits beside the final name in ``NAME.partial``,
and ``NAME.partial.json`` tells of which version it is a part (ETag or date), so that two versions are never joined.
"""

import contextlib
import errno
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from knowshift.errors import InputError
from knowshift.files import digest_file, make_folder
from knowshift.progress import bar

ATTEMPTS = 4
TIMEOUT = 30.0
CHUNK = 1 << 16
LIMIT = 1 << 30
# Worth asking again: the server is busy or the way to it broken; anything else stays as it is.
PASSING = (408, 425, 429, 500, 502, 503, 504)


class Unreachable(InputError):
    """The file cannot be had now: no connection, or the server does not give it."""


def download(url: str, partial: Path, *, label: str, pause: float = 0.5) -> None:
    """Bring ``partial`` to the whole file at ``url``, going on from what is there already.

    Attempts that bring nothing new count, four of them in a row end it; pauses between them double.

    Args:
        url: http or https.
        partial: where the bytes go; the caller checks and renames it.
        label: what the progress bar says.
        pause: seconds before the second attempt.

    Raises:
        Unreachable: if the server cannot be reached, does not have the file, or breaks off again and again.
        InputError: if ``url`` is no web address, or the file cannot be written.
    """
    _check_address(url)
    make_folder(partial.parent)
    failures = 0
    while True:
        before = _size(partial)
        try:
            _attempt(url, partial, label)
            return
        except (http.client.InvalidURL, ValueError) as error:  # a letter or a name that no address has
            raise InputError(f"{url}: not a web address: {error}") from error
        except urllib.error.HTTPError as error:
            reason, final = f"the server answers {error.code} {error.reason}", error.code not in PASSING
        except urllib.error.URLError as error:
            reason, final = str(error.reason), False
        except (OSError, http.client.HTTPException) as error:
            _check_disk(error, partial)
            reason, final = str(error) or type(error).__name__, False
        failures = 1 if _size(partial) > before else failures + 1
        if final or failures >= ATTEMPTS:
            raise Unreachable(f"{url}: {reason}")
        time.sleep(pause * 2 ** (failures - 1))


def forget(partial: Path) -> None:
    """Remove what came so far."""
    for path in (partial, _note(partial)):
        path.unlink(missing_ok=True)


def check_sha256(path: Path, expected: str) -> None:
    """Raises InputError unless the file's SHA-256 is ``expected``."""
    found = digest_file(path)
    if found != expected.strip().lower():
        raise InputError(f"SHA-256 is {found}, {expected} was asked for; the file is not used")


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # a wrong port raises
    except ValueError as error:
        raise InputError(f"{url}: not a web address: {error}") from error
    if not known:
        raise InputError(f"{url}: an http or https address is expected")


def _attempt(url: str, partial: Path, label: str) -> None:
    """One request; returns when ``partial`` is whole, raises OSError if the connection ends early."""
    have, version = _size(partial), _version(partial, url)
    headers = {"User-Agent": "knowshift", "Accept-Encoding": "identity"}
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing comes after what is here: it is all, or longer than the file is now
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
            forget(partial)
            raise ConnectionError("the server has another version of the file now") from error
        raise
    with response:
        start = _start(response)
        if start not in (0, have) or (start and _named(response.headers) not in (None, version)):
            forget(partial)
            raise ConnectionError("the server sends another part, or another version, than was asked for")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        if start == 0:
            forget(partial)  # first, so that no note ever speaks of the bytes of another version
            _remember(partial, url, response.headers)
        if total is not None:
            _check_room(partial, total - start)
        _receive(response, partial, start, total, label)


def _receive(response: Any, partial: Path, start: int, total: int | None, label: str) -> None:
    with partial.open("r+b" if start else "wb") as file, bar(label, total, done=start) as advance:
        file.seek(start)
        file.truncate()
        while data := response.read(CHUNK):
            file.write(data)
            advance(len(data))
            if file.tell() > LIMIT:
                raise InputError(f"{response.url}: more than {LIMIT >> 20} MiB; this is not the file that was expected")
        size = file.tell()
    if total is not None and size < total:
        raise ConnectionError(f"the connection ended after {size:,} of {total:,} bytes")


def _start(response: Any) -> int:
    """Where in the file the server's answer begins; a server that ignores ranges begins at 0."""
    if response.status != 206:
        return 0
    unit, _, rest = str(response.headers.get("Content-Range", "")).partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdecimal() else -1


def _version(partial: Path, url: str) -> str | None:
    """What names the version of which ``partial`` is a part, if it is a part of ``url``."""
    try:
        note = json.loads(_note(partial).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    version = note.get("version") if isinstance(note, dict) and note.get("url") == url else None
    return version if isinstance(version, str) else None


def _remember(partial: Path, url: str, headers: Any) -> None:
    _note(partial).write_text(json.dumps({"url": url, "version": _named(headers)}), "utf-8")


def _named(headers: Any) -> str | None:
    """The version by the server's headers. A weak ETag promises the same meaning, not the same bytes: it is none."""
    tag: str = headers.get("ETag", "")
    date: str | None = headers.get("Last-Modified")
    return tag if tag.startswith('"') else date


def _check_room(partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise InputError(f"{partial.parent}: {needed:,} bytes are needed here and {free:,} are free")


def _check_disk(error: Exception, partial: Path) -> None:
    """A full or failing disk is no matter of the connection, and asking again would not help."""
    disk = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR)
    if isinstance(error, OSError) and error.errno in disk:
        raise InputError(
            f"{partial}: cannot be written ({error.strerror}); make room and run the same command again: "
            f"{_size(partial):,} bytes are kept"
        ) from error


def _note(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _size(partial: Path) -> int:
    with contextlib.suppress(OSError):
        return partial.stat().st_size
    return 0
