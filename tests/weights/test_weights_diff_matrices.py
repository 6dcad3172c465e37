"""Norms and ranks of matrices against torch, charts beside the tables, and the one bar over it all."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import torch
import weights_twin as twin

from commands import refused
from knowshift.cli import main
from knowshift.files import read_json
from knowshift.weights import restore as restoring
from knowshift.weights.diff import diff


@pytest.mark.parametrize(("architecture", "dtype"), [("llama", "bf16"), ("gpt2", "fp32"), ("mixtral", "bf16")])
def test_every_matrix_is_what_torch_says(pair_of, monkeypatch, architecture: str, dtype: str) -> None:
    base, tuned = pair_of(architecture, dtype, True)
    monkeypatch.setattr("knowshift.weights.merge.dg_hard._BLOCK", 500)  # matrices in many blocks
    found = diff(base, tuned, matrices=True).matrices
    left, right = twin.load(base), twin.load(tuned)
    wanted = [name for name in right if twin.is_block_matrix(name) and right[name].ndim > 1]
    assert found is not None and found["name"].to_list() == wanted
    for row in found.iter_rows(named=True):
        before, after = left[row["name"]].double(), right[row["name"]].double()
        assert (row["rows"], row["columns"]) == tuple(before.shape)
        for side, tensor in (("base", before), ("tuned", after), ("update", after - before)):
            assert row[f"{side}_norm"] == pytest.approx(float(tensor.norm()), rel=1e-9)
        assert row["cosine"] == pytest.approx(float((before * after).sum() / before.norm() / after.norm()), rel=1e-12)
        values = torch.linalg.svdvals(after - before)
        shares = values / values.sum()
        assert row["effective_rank"] == pytest.approx(float(torch.exp(-(shares * shares.log()).sum())), rel=1e-6)
        assert row["stable_rank"] == pytest.approx(float(values.square().sum() / values[0] ** 2), rel=1e-9)


def test_matrices_that_did_not_change_have_no_rank(pair_of) -> None:
    base, _ = pair_of()
    found = diff(base, base, matrices=True).matrices
    assert found is not None and found["effective_rank"].null_count() == found.height
    assert found["update_norm"].sum() == 0 and found["cosine"].min() == pytest.approx(1)


def test_the_command_writes_matrices_and_charts_on_request(pair_of, tmp_path: Path, capsys) -> None:
    sides = [str(folder) for folder in pair_of("llama", "bf16", True)]
    assert main(["diff", *sides, "--out", str(tmp_path / "plain")]) == 0
    assert capsys.readouterr().out.startswith("changed: ")
    tables = {"concentration.parquet", "modules.parquet", "metrics.json", "run.json"}
    assert {path.name for path in (tmp_path / "plain").iterdir()} == tables
    assert main(["diff", *sides, "--out", str(tmp_path / "more"), "--matrices", "--charts"]) == 0
    assert {path.name for path in (tmp_path / "more").iterdir()} == tables | {"matrices.parquet", "charts"}
    drawn = {path.name for path in (tmp_path / "more" / "charts").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in ("concentration", "energy", "modules") for kind in ("svg", "png")}
    for path in (tmp_path / "more" / "charts").glob("*.svg"):
        assert path.read_text("utf-8").startswith("<svg")
    assert pl.read_parquet(tmp_path / "more" / "matrices.parquet").height
    run = read_json(tmp_path / "more" / "run.json")
    assert run["options"]["matrices"] is True and set(run["models"]) == {"base", "tuned"}
    assert all(digest.startswith("sha256:") for digest in run["models"].values())


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
def test_one_bar_over_everything_that_ends_full(pair_of, tmp_path, monkeypatch, counted, arithmetic) -> None:
    bars: list[list[int]] = []

    @contextmanager
    def bar(description: str, total: int):
        bars.append([total, 0])
        yield lambda n: bars[-1].__setitem__(1, bars[-1][1] + n)

    monkeypatch.setattr("knowshift.weights.walk.bar", bar)
    if counted:
        monkeypatch.setattr("knowshift.weights.census._LEAST", 1)
        monkeypatch.setattr("knowshift.weights.census._WORTH", 0)
    base, tuned = pair_of()
    diff(base, tuned, arithmetic=arithmetic)
    restoring.restore(base, tuned, [0.1, 0.5], tmp_path, arithmetic=arithmetic)
    diff(base, tuned, arithmetic=arithmetic, matrices=True)
    assert len(bars) == 3 and bars[2][0] > bars[0][0]
    assert all(done == total for total, done in bars)


@pytest.mark.parametrize("side", [0, 1])
def test_a_model_s_own_folder_is_no_place_for_a_diff(pair_of, capsys, side: int) -> None:
    before = sorted(pair_of()[side].iterdir())
    assert "is one of the two models" in refused(capsys, "diff", *pair_of(), "--out", pair_of()[side])
    assert sorted(pair_of()[side].iterdir()) == before


def test_diff_and_restore_import_nothing_they_do_not_need(pair_of, tmp_path: Path) -> None:
    code = """
import sys
from knowshift.cli import main
base, tuned, out = sys.argv[1:]
assert main(["diff", base, tuned, "--out", out + "/diff"]) == 0
assert main(["restore", base, tuned, "--fraction", "0.2", "--out", out + "/restored"]) == 0
alien = "torch transformers trl peft altair knowshift.facts knowshift.generate knowshift.mastery.select"
print(sorted(set(alien.split()) & set(sys.modules)))
"""
    arguments = [sys.executable, "-c", code, *map(str, pair_of()), str(tmp_path)]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.endswith("\n[]\n")
