"""The smoke plan about another architecture: only the model is changed."""

from pathlib import Path

import polars as pl
from test_study_run import KINDS, facts_file

import tiny
from commands import run
from knowshift.files import write_json
from knowshift.study.planfile import preset
from knowshift.study.run import status

# As each of them names what the same part of a block is called.
MODULES = {"q", "k", "v", "o", "gate", "up", "down"}


def test_the_smoke_plan_with_another_model(tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path / "gemma", "gemma3")
    plan = preset("smoke").model_dump(mode="json")
    plan |= {"models": [str(model)], "facts": str(facts_file(tmp_path / "facts.jsonl"))}
    write_json(tmp_path / "plan.yaml", plan)  # JSON is YAML
    out = tmp_path / "out"

    assert run("study", tmp_path / "plan.yaml", "--out", out, "--workers", 1) == 0

    table = status(out)
    assert set(table["state"]) <= {"done", "missing"}
    assert set(table.filter(state="done")["kind"]) == KINDS
    assert set(table.filter(role="tuned")["level"]) == set(plan["levels"])
    changed = pl.read_parquet(out / "tables/modules.parquet")
    assert {name.rpartition(".")[2] for name in changed["module"].drop_nulls()} == MODULES
    assert set(pl.read_parquet(out / "tables/claims.parquet")["model"]) == {str(model)}
