"""A study's page: claims first, charts of the exported tables alone, every table with what is missing, nothing of the
data unescaped; studies side by side."""

import json
import shutil
from pathlib import Path
from typing import Any

import altair as alt
import page_reader
import planted_page
import polars as pl
import pytest

import commands
from knowshift.report import make
from knowshift.report.theme import specification
from knowshift.study.export import read

CHARTS = {
    "size", "accuracy", "transitions", "strategies", "restoration", "confirmed", "parts", "drift", "drift_accuracy",
    "concentration", "modules", "layers",
}  # fmt: skip


@pytest.fixture(scope="module")
def page(study: Path) -> page_reader.Element:
    return page_reader.read(study / "report.html")


def specs(page: page_reader.Element) -> dict[str, Any]:
    """Specifications by chart."""
    return {
        script.attributes["id"].removeprefix("spec-"): json.loads(script.text)
        for script in page.all("script")
        if script.attributes.get("type") == "application/json"
    }


def data(spec: dict[str, Any]) -> pl.DataFrame:
    """The rows of a chart's one data set."""
    (rows,) = spec["datasets"].values()
    return pl.DataFrame(rows["rows"], schema=rows["columns"], orient="row", infer_schema_length=None)


def test_claims_come_first_as_the_tables_have_them(page: page_reader.Element, study: Path) -> None:
    sections = page.all("main")[0].all("section")
    assert [section.attributes["id"] for section in sections] == ["claims", "figures", "tables"]
    frame = pl.read_parquet(study / "tables/claims.parquet")
    articles = page.all("article")
    assert [article.all("h3")[0].text for article in articles] == frame["claim"].to_list()
    for article, verdict in zip(articles, frame["verdict"], strict=True):
        assert article.all("strong")[0].text.lower().removesuffix(" at this sample") == verdict
    ids = [element.attributes["id"] for element in page.everything() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    links = page.all("a")
    assert {link.attributes["href"].removeprefix("#") for link in links} <= set(ids)
    marked = {name for row in page.all("tr") for name in row.attributes.get("data-claims", "").split()}
    assert {"low-mastery", "restoration", "concentration", "ffn"} <= marked
    low = [row.attributes for row in page.all("tr") if "low-mastery" in row.attributes.get("data-claims", "").split()]
    assert {row["data-level"] for row in low} == {"level 0", "level 2"} and {row["data-size"] for row in low} == {"240"}


def test_every_chart_is_inlined_and_written(page: page_reader.Element, study: Path) -> None:
    assert set(specs(page)) == CHARTS
    for name in CHARTS:
        assert (study / f"charts/{name}.svg").read_text("utf-8").startswith("<svg")
        assert (study / f"charts/{name}.png").read_bytes().startswith(b"\x89PNG")
    for element in page.everything():
        for name in ("src", "href", "data", "poster", "srcset"):
            value = element.attributes.get(name, "")
            assert not value or value.startswith(("#", "data:")), f"<{element.tag} {name}={value[:60]}>"


def test_charts_show_the_tables_and_lead_to_their_rows(page: page_reader.Element, study: Path) -> None:
    drawn, tables = specs(page), read(study / "tables")
    shown = data(drawn["size"])
    means = tables["size"].frame.drop_nulls("value")
    assert sorted(shown.filter(pl.col("seed").is_null())["value"]) == pytest.approx(sorted(means["value"]), abs=1e-5)
    chosen = tables["confirmed"].frame.filter(pl.col("value").is_not_null(), measure="difference")
    assert data(drawn["confirmed"]).filter(pl.col("seed").is_null()).height == chosen.height
    rows = {row.attributes["id"]: row.text for row in page.all("tr") if "id" in row.attributes}
    for name, spec in drawn.items():
        assert set(data(spec)["row"]) <= set(rows), name
    for row, value in shown.select("row", "value").iter_rows():
        assert any(f"{100 * value + off:.1f}" in rows[row] for off in (-0.05, 0, 0.05)), row


def test_rows_of_single_seeds_are_those_of_its_cells(study: Path) -> None:
    seeds = read(study / "tables")["seeds"].frame
    cells = pl.read_parquet(study / "tables/size.parquet")
    assert set(seeds["seed"]) == {0, 1}
    own = seeds.filter(pl.col("test_level").is_null(), table="accuracy", level=0, size=60, domain="id", method="sft")
    mean = cells.filter(level=0, size=60, domain="id", method="sft")["value"]
    assert own.height == 2 and own["value"].mean() == pytest.approx(mean.item())
    assert own["value"].n_unique() == 2
    assert seeds.filter(table="accuracy", level=2, size=60, seed=1).is_empty()


def test_what_is_missing_is_a_row_that_says_why(page: page_reader.Element) -> None:
    text = page_reader.Element.text.fget(page.all("details")[1])  # type: ignore[attr-defined]
    assert "(1 of 2 seeds)" in text
    gone = [cell.text for cell in page.all("td", "missing")]
    assert gone and all(planted_page.ERROR in cell for cell in gone)
    assert any("missing and" in note.text for note in page.all("span", "lacking"))


def test_every_table_is_there_with_its_command_and_notes(page: page_reader.Element, study: Path) -> None:
    details = {one.attributes.get("id", "").removeprefix("table-"): one for one in page.all("details", "rows")}
    tables = read(study / "tables")
    assert set(details) == set(tables) - {"claims"}
    for name, shown in details.items():
        assert tables[name].command in shown.text
        assert all(" ".join(note.split()) in shown.text for note in tables[name].notes)
        assert len(shown.all("tbody")[0].all("tr")) > 0
    base = [row for row in details["size"].all("tr") if "base" in row.text]
    assert base and all("data-level" not in row.attributes for row in base)


def test_nothing_of_the_data_is_unescaped(page: page_reader.Element) -> None:
    assert planted_page.MODEL in page.all("h1")[0].text
    assert any(planted_page.METHOD in row.text for row in page.all("tr"))
    scripts = [one for one in page.all("script") if one.attributes.get("type") != "application/json"]
    assert len(scripts) == 1 and "alert(" not in scripts[0].text[-20000:]
    assert all(image.attributes["src"].startswith("data:") for image in page.all("img"))
    for element in page.everything():
        assert not any(name.startswith("on") for name in element.attributes), element.tag


def test_tables_alone_are_enough(study: Path, tmp_path: Path) -> None:
    """No cell is read by a figure: what a table says is what is drawn."""
    shutil.copytree(study / "tables", tmp_path / "tables")
    frame = pl.read_parquet(tmp_path / "tables/drift.parquet")
    frame.with_columns(pl.col("value") + 1).write_parquet(tmp_path / "tables/drift.parquet")
    page = page_reader.read(make([tmp_path], latex=True))
    assert data(specs(page)["drift"]).filter(pl.col("seed").is_null())["value"].min() > 1.2  # type: ignore[operator]
    assert (tmp_path / "tables/seeds.tex").is_file() and not (tmp_path / "tables/seeds.md").is_file()


def test_a_study_without_anything_done_has_its_page(tmp_path: Path) -> None:
    from plantedstudy import Planted, Truth

    Planted(tmp_path, Truth(), levels=(0,), sizes=(60,), seeds=(0,), methods=("sft",), facts=2).write(
        without=lambda cell: True
    )
    page = page_reader.read(make([tmp_path]))
    assert specs(page) == {} and "0 supported" in page.all("section")[0].text
    assert page.all("td", "missing")


def test_a_table_of_many_rows_is_drawn() -> None:
    frame = pl.DataFrame({"x": range(6000), "panel": ["one"] * 6000})
    spec = specification(alt.Chart(frame).mark_point().encode(x="x:Q").facet("panel:N"))
    assert [len(rows) for rows in spec["datasets"].values()] == [6000]


def test_two_studies_stand_side_by_side(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = planted_page.write(tmp_path / "two", model="other", methods=("sft",), page=False)
    monkeypatch.chdir(tmp_path)
    before = (study / "report.html").stat().st_mtime_ns
    assert commands.run("report", study, other) == 0
    assert "compared/report.html" in capsys.readouterr().out
    assert (study / "report.html").stat().st_mtime_ns == before
    page = page_reader.read(tmp_path / "compared/report.html")
    names = [f"{planted_page.MODEL} (one)", "other (two)"]
    for article in page.all("article"):
        assert [one.text for one in article.all("span", "subject")] == names
    for name, spec in specs(page).items():
        facets = set(data(spec)["panel"])
        assert all(any(facet.startswith(name) for facet in facets) for name in names), name
    assert {row.attributes.get("data-subject") for row in page.all("tr") if "id" in row.attributes} == set(names)
    assert len(list((tmp_path / "compared/charts").glob("*.svg"))) == len(CHARTS)


def test_what_does_not_fit_is_refused(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "no study's tables" in commands.refused(capsys, "report", study, tmp_path / "empty")
    assert "no such folder" in commands.refused(capsys, "report", study, tmp_path / "nowhere")
    assert "compared with itself" in commands.refused(capsys, "report", study, study)
    assert "--out" in commands.refused(capsys, "report", study, "--out", tmp_path / "x")
    assert "--latex" in commands.refused(capsys, "report", tmp_path / "empty", "--latex")
    assert not (tmp_path / "x").exists() and not (tmp_path / "empty/report.html").exists()
