"""A study's tables against figures computed another way; what is missing is a row; files as a reader gets them."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from knowshift.study.cell import Cell
from knowshift.study.export import as_latex, as_markdown, export, printed, read, write
from knowshift.study.index import Missing
from knowshift.study.measures import Measures
from knowshift.study.tables import Table, build
from plantedstudy import FRACTION, Planted, Truth

SMALL: dict[str, Any] = {"levels": (0, 2), "sizes": (60, 240), "seeds": (0, 1), "methods": ("sft",), "facts": 8}


@pytest.fixture(scope="module")
def study() -> Planted:
    own = Planted(Path(), Truth(restored=lambda name: 0.1 if name == "relative" else 0.0), **SMALL)
    own.missing.append(
        Missing("train", {"role": "tuned", "model": "planted", "level": 4, "asked_size": "60"}, "level 4 holds 7 facts")
    )
    return own


@pytest.fixture(scope="module")
def measures(study: Planted) -> Measures:
    return study.in_memory()


@pytest.fixture(scope="module")
def tables(measures: Measures) -> dict[str, Table]:
    return build(measures)


def answers(study: Planted, kind: str, **labels: Any) -> list[pl.DataFrame]:
    """The files of the cells that labels tell, by seed."""
    cells = [cell for cell in study.cells if cell.kind == kind and labels.items() <= dict(cell.labels).items()]
    return [study.cells[cell]["answers.parquet"] for cell in sorted(cells, key=lambda cell: cell.labels.get("seed", 0))]


def mean(table: pl.DataFrame, domain: str) -> float:
    """The unweighted mean over levels, by hand."""
    means = table.filter(domain=domain).group_by("level").agg(pl.col("contains").mean())["contains"]
    return float(sum(means.to_list()) / len(means))


def test_accuracy(study: Planted, tables: dict[str, Table]) -> None:
    frame = tables["accuracy"].frame
    row = frame.filter(pl.col("test_level").is_null(), level=2, size=240, domain="id", measure="contains", role="tuned")
    each = [mean(table, "id") for table in answers(study, "eval", level=2, size=240, split="test")]
    assert row["value"].to_list() == pytest.approx([sum(each) / 2])
    assert row["spread"].to_list() == pytest.approx([abs(each[0] - each[1]) / 2**0.5])
    assert row.select("seeds", "asked_seeds", "state", "facts").row(0) == (2, 2, "complete", 40)
    one = frame.filter(level=2, size=240, domain="ood", measure="contains", test_level=3)
    hits = [
        table.filter(domain="ood", level=3)["contains"].mean()
        for table in answers(study, "eval", level=2, size=240, split="test")
    ]
    assert one["value"].to_list() == pytest.approx([sum(hits) / 2])
    for name in ("accuracy", "size"):  # the base model's own rows stand first
        assert set(tables[name].frame.filter(role="base")["form"]) == {"trained", "few-shot"}
        assert tables[name].frame["role"][0] == "base"


def test_restoration_is_paired_with_the_tuned_model(study: Planted, tables: dict[str, Table]) -> None:
    def by_hand(kind: str, domain: str) -> float:
        gains = []
        for table in answers(study, kind, level=0, size=60):
            restored = table.filter(method="relative", fraction=FRACTION)
            gains.append(mean(restored, domain) - mean(table.filter(method="relative", fraction=0.0), domain))
        return sum(gains) / len(gains)

    for name, kind in (("restoration", "sweep"), ("confirmed", "confirm")):
        frame = tables[name].frame.filter(level=0, size=60, restoration="relative", measure="difference")
        if name == "restoration":
            frame = frame.filter(fraction=FRACTION)
        found = dict(frame.select("domain", "value").iter_rows())
        assert found["id"] == pytest.approx(by_hand(kind, "id"))
        assert found["both"] == pytest.approx((by_hand(kind, "id") + by_hand(kind, "ood")) / 2)
    assert set(tables["parts"].frame["setting"]) == {"layers=0-3", "layers=4-7", "layers=8-11"}
    assert "layers" not in tables["restoration"].frame["restoration"].to_list()


def test_transitions(study: Planted, tables: dict[str, Table]) -> None:
    (base,) = answers(study, "eval", role="base", form="few-shot", split="test")
    lost = []
    for table in answers(study, "eval", level=0, size=60, split="test"):
        both = base.select("id", known="contains").join(table, on="id").filter(pl.col("known"), domain="id")
        lost.append(1 - both["contains"].mean())
    row = tables["transitions"].frame.filter(level=0, size=60, domain="id", change="lost")
    assert row["value"].to_list() == pytest.approx([sum(lost) / 2])
    assert row["base_form"].to_list() == ["few-shot"]


def test_weights(study: Planted, tables: dict[str, Table]) -> None:
    frame = tables["concentration"].frame.filter(fraction=0.01, level=0, size=60)
    means = dict(frame.select("measure", "value").iter_rows())
    assert means["excess"] == pytest.approx(means["share"] - means["null_share"])
    assert means["null_share"] == pytest.approx(0.7)
    for name, by in (("modules", "module"), ("layers", "layer")):
        parts = (
            tables[name]
            .frame.filter(level=0, size=60, measure="restored_share")
            .group_by("fraction")
            .agg(pl.col("value").sum())
        )
        assert parts["value"].to_list() == pytest.approx([1.0]), by
    assert tables["layers"].frame["layer"].drop_nulls().n_unique() == 12


def test_what_there_cannot_be_is_a_row(tables: dict[str, Table]) -> None:
    for name in ("accuracy", "size", "restoration", "drift", "concentration"):
        rows = tables[name].frame.filter(level=4)
        assert rows.height, name
        assert set(rows["state"]) == {"missing"}
        assert set(rows["why"]) == {"level 4 holds 7 facts"}
        assert rows["value"].null_count() == rows.height


def test_fewer_seeds_than_asked_are_said(tmp_path: Path) -> None:
    def left(cell: Cell) -> bool:
        labels = cell.labels
        return cell.kind == "eval" and (labels.get("level"), labels.get("size"), labels.get("seed")) == (2, 60, 1)

    Planted(tmp_path, Truth(), **SMALL).write(without=left)
    frame = export(tmp_path, resamples=100)["size"].frame.filter(level=2)
    partial, whole = frame.filter(size=60), frame.filter(size=240)
    assert set(partial["state"]) == {"partial"} and set(partial["why"]) == {"seed 1 waiting"}
    assert partial["seeds"].to_list() == [1, 1] and partial["spread"].null_count() == 2
    assert set(whole["state"]) == {"complete"}
    assert "(1 of 2 seeds)" in as_markdown(Table("size", "Size", frame, across="asked_size"))


def test_strategies_are_chosen_on_validation(study: Planted) -> None:
    """Test answers all wrong change no choice; validation answers do."""
    before = build(study.in_memory())["strategies"].frame

    def spoiled(split: str, **labels: Any) -> pl.DataFrame:
        other = Planted(Path(), study.truth, **SMALL)
        other.plan()
        for cell, files in other.cells.items():
            if (
                cell.kind == "eval"
                and cell.labels.get("split") == split
                and labels.items() <= dict(cell.labels).items()
            ):
                files["answers.parquet"] = files["answers.parquet"].with_columns(contains=pl.lit(False))
        return build(other.measured())["strategies"].frame

    chosen = before.filter(strategy="sft, one level").row(0, named=True)
    own = {"level": chosen["level"], "size": chosen["size"]}
    after = spoiled("test", **own).filter(strategy="sft, one level").row(0, named=True)
    assert {name: after[name] for name in own} == own and after["value"] == 0
    other = spoiled("validation", **own).filter(strategy="sft, one level").row(0, named=True)
    assert {name: other[name] for name in own} != own


def test_files(tmp_path: Path, tables: dict[str, Table]) -> None:
    write(tables.values(), tmp_path, latex=True, markdown=True)
    back = read(tmp_path)
    assert list(back) == list(tables)
    for name, table in tables.items():
        assert_frame_equal(back[name].frame, table.frame)
        assert (back[name].across, back[name].notes, back[name].command) == (table.across, table.notes, table.command)
        assert (tmp_path / f"{name}.csv").read_text("utf-8").count("\n") == table.frame.height + 1
    shown = printed(tables["size"])
    assert shown.header[-3:] == ["not trained", "60", "240"]
    assert len({len(row) for row in shown.rows} | {len(shown.header)}) == 1
    row = next(row for row in shown.rows if "0" in row and "id" in row)
    assert "" not in row[-2:]  # both sizes stand in one row


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a|b_c%d&e#f$g{h}i~j^k\\l", "two\nlines"])
def test_nothing_from_data_is_unescaped(name: str, tables: dict[str, Table]) -> None:
    method = pl.when(role="tuned").then(pl.lit(name)).otherwise(pl.lit("none"))
    frame = tables["size"].frame.with_columns(method=method)
    table = Table("size", "Size", frame, across="asked_size")
    markdown, latex = as_markdown(table), as_latex(table)
    assert "<script" not in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines}) == 1
    body = [line for line in latex.splitlines() if line.endswith(r"\\") and "caption" not in line]
    plain = [line.replace(r"\&", "").replace(r"\%", "") for line in body]
    assert len({line.count("&") for line in plain}) == 1
    assert all("%" not in line and "_" not in line.replace(r"\_", "") for line in plain)
