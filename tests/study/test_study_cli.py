"""The command: a plan, init, status; what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from commands import refused, run
from knowshift.study.planfile import preset, read_plan
from stubs import diamonds, study


def test_init_writes_a_plan_and_never_over_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.yaml"
    assert run("study", "init", "--preset", "smoke", plan) == 0
    assert read_plan(plan) == preset("smoke")
    assert "there already" in refused(capsys, "study", "init", plan)
    assert "--preset tiny" in refused(capsys, "study", "init", "--preset", "tiny", tmp_path / "other.yaml")
    assert not (tmp_path / "other.yaml").exists()


def test_what_is_no_sub_command_is_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "nope.yaml: no such plan" in refused(capsys, "study", "nope.yaml", "--out", "out")
    assert "nope.yaml: no such plan" in refused(capsys, "study", "--out", "out", "nope.yaml")
    (tmp_path / "init").write_text("sizes: [0]\n")
    assert "init:1: sizes.0" in refused(capsys, "study", "./init", "--out", "out")
    assert "--out" in refused(capsys, "study", "nope.yaml")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"models: [{tmp_path}/none]\nsizes: [8]\n")
    assert "none: no such model folder" in refused(capsys, "study", plan, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_status_counts_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from knowshift.errors import InputError
    from knowshift.study.cell import Cell

    bad = Cell("stub", {"fail": "no luck today"})
    with pytest.raises(InputError):
        study(tmp_path, [*diamonds(1), bad])
    assert run("study", "status", tmp_path) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["done", "failed"]
    assert said[-2].split() == ["all", "5", "1"]
    assert said[-1].startswith("failed: stub") and "no luck today" in said[-1] and "error.txt" in said[-1]
    assert "no study's folder" in refused(capsys, "study", "status", tmp_path / "none")


def test_tables_need_nothing_that_draws() -> None:
    """Who has not installed the extra for pages can do a study."""
    script = "import sys; sys.modules |= dict.fromkeys(['altair', 'jinja2', 'vl_convert']); "
    script += "import knowshift.study.run, knowshift.report.study, knowshift.study.export"
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
