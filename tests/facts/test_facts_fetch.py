"""Fetching over real HTTP on this machine: whole or not at all, and never two versions in one file."""

import hashlib
import os
import random
import resource
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import miniquestions as mini
from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.facts import fetch as fetching
from knowshift.facts.download import Unreachable, download
from knowshift.facts.entityquestions import content
from knowshift.facts.sources import read_facts

BODY = random.Random(3).randbytes(300_000)
REAL = os.environ.get("KNOWSHIFT_ENTITYQUESTIONS", "")


class Server(ThreadingHTTPServer):
    """Serves one file, as badly as told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.etag: str | None = '"one"'
        self.cuts: list[int] = []  # the next answers end after so many bytes
        self.statuses: list[int] = []  # the next answers are these errors
        self.ranges = self.if_range = self.length = True
        self.asked: list[str | None] = []  # the Range of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/dataset.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        same = not server.if_range or self.headers["If-Range"] in (None, server.etag)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges and same else 0
        if start >= len(server.body) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            self.end_headers()
            return
        part = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.length:
            self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: server.cuts.pop(0)] if server.cuts else part)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("knowshift.facts.download.time.sleep", lambda seconds: None)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: Server, partial: Path) -> bytes:
    download(server.url, partial, label="test")
    return partial.read_bytes()


def test_a_whole_file(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path / "deep" / "file.partial") == BODY
    assert server.asked == [None]


def test_without_a_length_or_a_version(server: Server, tmp_path: Path) -> None:
    server.length, server.etag = False, None
    assert get(server, tmp_path / "a.partial") == BODY
    server.length, server.cuts = True, [1000]  # nothing names the version, so it begins again
    assert get(server, tmp_path / "b.partial") == BODY
    assert server.asked == [None, None, None]


def test_cut_in_the_middle_it_goes_on(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 150_000, 20_000]
    assert get(server, tmp_path / "file.partial") == BODY
    assert server.asked == [None, "bytes=100000-", "bytes=250000-", "bytes=270000-"]


def test_the_next_run_goes_on(server: Server, tmp_path: Path) -> None:
    partial = tmp_path / "file.partial"
    server.cuts = [123_456, 0, 0, 0]
    with pytest.raises(Unreachable, match=r"the connection ended after 123,456 of 300,000 bytes"):
        get(server, partial)
    assert partial.read_bytes() == BODY[:123_456]
    server.asked.clear()
    assert get(server, partial) == BODY
    assert server.asked == ["bytes=123456-"]
    server.asked.clear()
    assert get(server, partial) == BODY  # killed between the last byte and the new name
    assert server.asked == ["bytes=300000-"]


def test_a_server_that_ignores_ranges(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [100_000]
    assert get(server, tmp_path / "file.partial") == BODY
    assert server.asked == [None, "bytes=100000-"]


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("size", [300_000, 50_000])
def test_two_versions_are_never_joined(honest: bool, size: int, server: Server, tmp_path: Path) -> None:
    partial = tmp_path / "file.partial"
    server.cuts = [100_000, 0, 0, 0]
    with pytest.raises(Unreachable):
        get(server, partial)
    server.body, server.etag, server.if_range = random.Random(4).randbytes(size), '"two"', honest
    assert get(server, partial) == server.body


def test_a_part_of_another_address_is_not_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 0, 0, 0]
    with pytest.raises(Unreachable):
        get(server, tmp_path / "file.partial")
    server.asked.clear()
    download(f"{server.url}?other", tmp_path / "file.partial", label="test")
    assert server.asked == [None]


def test_busy_is_asked_again_and_missing_is_not(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    assert get(server, tmp_path / "a.partial") == BODY
    server.asked.clear()
    server.statuses = [404]
    with pytest.raises(Unreachable, match=r"dataset\.zip: the server answers 404 Not Found"):
        get(server, tmp_path / "b.partial")
    assert len(server.asked) == 1
    server.statuses = [503] * 9
    with pytest.raises(Unreachable, match="503"):
        get(server, tmp_path / "c.partial")
    assert len(server.asked) == 5  # four attempts in a row that brought nothing


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a/b", "file:///etc/passwd", "dataset.zip", "http://", "http://[::1", "http://a b/", "http://a:x/", ""),
        *("http://127.0.0.1:99999/", f"http://{'a' * 70}.example/", "http://127.0.0.1/\u00fc", "http://a\n/"),
    ],
)
def test_what_is_no_web_address(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["facts", "fetch", "entityquestions", "--url", url, "--out", str(tmp_path / "eq.zip")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "address" in error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = tmp_path / "file.partial"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(InputError, match=r"file\.partial: cannot be written \(File too large\); make room"):
            get(server, partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < partial.stat().st_size <= 200_000
    assert get(server, partial) == BODY
    assert server.asked[-1] is not None
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"300,000 bytes are needed here and 1,000 are free"):
        get(server, tmp_path / "other.partial")


# The command, on a made-up data set that takes the place of the published one.


@pytest.fixture
def small(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    archive = mini.zipped(tmp_path / "public.zip", mini.members(mini.entries()))
    server.body = archive.read_bytes()
    rows, digest = content(archive)
    monkeypatch.setattr(fetching, "ROWS", rows)
    monkeypatch.setattr(fetching, "CONTENT", digest)
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))
    return server


def fetch(server: Server, *more: object) -> int:
    return main(["facts", "fetch", "entityquestions", "--url", server.url, *map(str, more)])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("knowshift: error: ")
    assert error.count("\n") == 1
    return error


def test_fetched_once_and_used_by_name(small: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "facts.jsonl")
    assert main(["facts", "export", "entityquestions", "--out", out]) == 2
    assert "knowshift facts fetch entityquestions" in refused(capsys)
    assert main(["facts", "list"]) == 0
    assert "entityquestions: not fetched" in capsys.readouterr().out
    small.cuts = [1000]
    assert fetch(small) == 0
    assert hashlib.sha256(small.body).hexdigest() in capsys.readouterr().out
    assert small.asked == [None, "bytes=1000-"]
    assert fetch(small) == 0
    assert "there already" in capsys.readouterr().out
    assert len(small.asked) == 2
    assert [file.name for file in fetching.place().parent.iterdir() if not file.name.endswith(".lock")] == [
        fetching.place().name
    ]
    assert main(["facts", "list"]) == 0
    assert "  P17 " in capsys.readouterr().out
    assert main(["facts", "export", "entityquestions", "--split", "train", "--out", out]) == 0
    assert len(read_facts(out)) == 14


def test_what_is_not_the_data_set_is_not_kept(
    small: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = small.body
    files = mini.members(mini.entries() | {"test/P17.test.json": [mini.ask("P17", "Åland", "Sweden")]})
    other = mini.zipped(tmp_path / "other.zip", files).read_bytes()
    for body, said in [
        (other, "expected"),
        (b"<html>This page has moved</html>", "neither a folder nor a"),
        (b"", "neither a folder nor a"),
        (good[:-30], "damaged"),
    ]:
        small.body = body
        assert fetch(small) == 2
        error = refused(capsys)
        assert f"{small.url}: this is not EntityQuestions as published" in error
        assert said in error
        assert [file for file in fetching.place().parent.iterdir() if not file.name.endswith(".lock")] == []
    small.body = good
    assert fetch(small) == 0


def test_the_file_s_own_checksum(small: Server, capsys: pytest.CaptureFixture[str]) -> None:
    right = hashlib.sha256(small.body).hexdigest()
    assert fetch(small, "--sha256", "0" * 64) == 2
    assert f"SHA-256 is {right}, {'0' * 64} was asked for" in refused(capsys)
    assert not fetching.place().exists()
    assert fetch(small, "--sha256", right.upper()) == 0


def test_to_a_file_of_one_s_own(small: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new" / "eq.zip"
    assert fetch(small, "--out", target) == 0
    assert f"entityquestions:{target}" in capsys.readouterr().out
    assert [file.name for file in target.parent.iterdir()] == ["eq.zip"]
    assert len(read_facts(f"entityquestions:{target}")) > 0
    target.write_text("my own notes")
    assert fetch(small, "--out", target) == 2
    assert "is there already and is something else" in refused(capsys)
    assert target.read_text() == "my own notes"
    assert fetch(small, "--out", tmp_path) == 2
    assert "this is a folder" in refused(capsys)
    assert main(["facts", "fetch", "popqa"]) == 2
    assert "popqa: nothing of that name can be fetched" in refused(capsys)


def test_nobody_listening(small: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, so nobody else takes it, and not listening
        url = f"http://127.0.0.1:{free.getsockname()[1]}/dataset.zip"
        assert main(["facts", "fetch", "entityquestions", "--url", url]) == 2
    error = refused(capsys)
    assert "Connection refused" in error
    assert "entityquestions:PATH" in error
    assert not fetching.place().exists()


@pytest.mark.skipif(not REAL, reason="KNOWSHIFT_ENTITYQUESTIONS does not name the archive")
def test_the_real_archive_passes(server: Server, tmp_path: Path) -> None:
    server.body, server.cuts = Path(REAL).read_bytes(), [1_000_000]
    got = fetching.fetch_entityquestions(tmp_path / "eq.tar.gz", url=server.url)
    assert (got.rows, got.new) == (122_754, True)
    assert got.sha256 == hashlib.sha256(server.body).hexdigest()
