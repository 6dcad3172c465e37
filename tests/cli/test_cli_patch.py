"""Patches from the command line: restore --patch, patch apply, revert and show."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from commands import run


@pytest.fixture
def made(base_folder: Path, tuned_folder: Path, tmp_path: Path) -> Path:
    """A folder with 0.2.patch, as the command line writes it."""
    assert run("restore", base_folder, tuned_folder, "--fraction", 0.2, "--out", tmp_path / "out", "--patch") == 0
    return tmp_path / "out"


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_there_and_back(
    made: Path, base_folder: Path, tuned_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert {path.name for path in made.iterdir()} == {"0.2.patch", "run.json"}
    entry = json.loads((made / "run.json").read_text())
    assert entry["command"] == "restore" and entry["options"]["patch"] is True
    assert run("restore", base_folder, tuned_folder, "--fraction", 0.2, "--out", made) == 0
    applied, reverted = tmp_path / "applied", tmp_path / "reverted"
    assert run("patch", "apply", made / "0.2.patch", tuned_folder, "--out", applied) == 0
    assert run("patch", "revert", made / "0.2.patch", applied, "--out", reverted) == 0
    assert capsys.readouterr().out == f"{made / '0.2'}\n{applied}\n{reverted}\n"
    assert weights(applied) == weights(made / "0.2")
    assert weights(reverted) == weights(tuned_folder)
    for folder in (applied, reverted):
        names = {path.name for path in folder.iterdir()}
        assert names == {path.name for path in tuned_folder.iterdir()} | {"README.md", "run.json"}
    entry = json.loads((applied / "run.json").read_text())
    assert entry["command"] == "patch apply"
    assert entry["options"] == {"patch": str(made / "0.2.patch"), "model": str(tuned_folder)}
    assert all(entry["models"][role].startswith("sha256:") for role in ("model", "patch"))
    card = (reverted / "README.md").read_text()
    assert f"knowshift patch revert {made / '0.2.patch'} {applied} --out {reverted}" in card
    # The same commands again replace what they wrote.
    assert run("patch", "apply", made / "0.2.patch", tuned_folder, "--out", applied) == 0
    capsys.readouterr()
    assert run("restore", base_folder, tuned_folder, "--fraction", 0.2, "--out", made, "--patch") == 0
    assert capsys.readouterr().out == f"{made / '0.2.patch'}\n"


def test_show(made: Path, base_folder: Path, tuned_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("patch", "show", made / "0.2.patch") == 0
    shown = capsys.readouterr().out
    assert run("patch", "show", made / "0.2.patch", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["base"] == str(base_folder) and facts["tuned"] == str(tuned_folder)
    assert f" {facts['changed']:,} of {facts['parameters']:,} weights in " in shown
    assert f"{facts['bits_per_change']:.2f} bits for each" in shown
    assert ["fraction", "0.2"] in [line.split() for line in shown.splitlines()]
    assert facts["settings"]["fraction"] == "0.2"
    for module in ("q", "k", "v", "o", "gate", "up", "down"):
        changed = sum(row["changed"] for row in facts["modules"] if row["module"] == module)
        assert any(line.split()[0] == module and f" {changed:,} " in line for line in shown.splitlines())


def test_what_is_wrong_is_one_line(
    made: Path, base_folder: Path, tuned_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = made / "0.2.patch", tmp_path / "x"
    cut = tmp_path / "cut.patch"
    cut.write_bytes(file.read_bytes()[:-9])
    assert run("patch", "apply", file, tuned_folder, "--out", tmp_path / "applied") == 0
    for arguments, fault in (
        (("apply", file, base_folder, "--out", out), "neither as before nor as after"),
        (("revert", file, tuned_folder, "--out", out), "nothing to revert"),
        (("apply", file, tmp_path / "applied", "--out", out), "already applied"),
        (("apply", cut, tuned_folder, "--out", out), "truncated"),
        (("show", cut), "truncated"),
        (("show", tmp_path / "none.patch"), "none.patch: cannot be read: No such file"),
        (("apply", file, tmp_path / "nowhere", "--out", out), "nowhere"),
        (("apply", file, tuned_folder, "--out", made), "which is being read"),
        (("apply", file), "Missing argument 'MODEL'"),
        (("undo", file), "No such command 'undo'"),
    ):
        capsys.readouterr()
        assert run("patch", *arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("knowshift: error: ") and error.count("\n") == 1 and fault in error
    assert not out.exists()


def test_needs_no_torch(made: Path, tuned_folder: Path, tmp_path: Path) -> None:
    arguments = ["patch", "apply", *map(str, (made / "0.2.patch", tuned_folder, "--out", tmp_path / "a"))]
    script = (
        f"import sys; from knowshift.cli import main; main({arguments!r});"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("[]")
