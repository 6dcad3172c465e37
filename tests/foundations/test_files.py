"""Whole files or none, whatever happens in between."""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from knowshift.errors import InputError
from knowshift.files import atomic_file, atomic_folder, check_writable, make_folder, read_json, write_json
from knowshift.seeds import derive


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"
    with atomic_file(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"


def test_a_folder_takes_the_old_ones_place(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for text in ("old", "new"):
        with atomic_folder(path) as partial:
            (partial / text).write_text(text)
    assert [entry.name for entry in path.iterdir()] == ["new"]
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as partial:
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; from knowshift.files import atomic_folder\n"
        "with atomic_folder(pathlib.Path(sys.argv[1])) as partial: os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [entry.name for entry in tmp_path.iterdir()] != []
    assert not path.exists()
    living = tmp_path / f".run.{platform.node()}-{os.getppid()}.partial"
    living.mkdir()
    with atomic_folder(path) as partial:
        (partial / "x").write_text("x")
    assert {entry.name for entry in tmp_path.iterdir()} == {"run", living.name}


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{")
    with pytest.raises(InputError, match="file:1: not valid JSON"):
        read_json(tmp_path / "file")
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "none")
    with pytest.raises(InputError, match="is a file"):
        check_writable(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="cannot create"):
        make_folder(tmp_path / "file" / "run")
    check_writable(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "nan.json", float("nan"))
    assert not (tmp_path / "nan.json").exists()


def test_seeds_are_named_and_stable() -> None:
    assert derive(0, "a", 1) == derive(0, "a", 1)
    assert len({derive(seed, *parts) for seed in (0, 1) for parts in (("a", 1), ("a1",), ("a", "1x"), ("b", 1))}) == 8
    assert 0 <= derive(3, "x") < 2**63
