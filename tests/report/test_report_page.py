"""The page is whole: self-contained, inert, every chart written, and it says what is missing."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import fake_run
import page_reader
import polars as pl
import pytest
import typer

from knowshift.cli import app
from knowshift.errors import InputError
from knowshift.report import build

CHARTS = {
    "mastery-levels",
    "accuracy-id",
    "accuracy-ood",
    "transitions-id",
    "transitions-ood",
    "drift-id",
    "drift-ood",
    "concentration-low",
    "concentration-middle",
    "energy",
    "enrichment-low",
    "enrichment-middle",
    "restoration-fraction",
    "restoration-norm",
    "restoration-format",
    "confirmation",
}
# Renderers number the clips of a picture through the whole process.
PICTURE = re.compile(r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]+")
LOADING = ("src", "href", "action", "data", "poster", "srcset", "formaction", "background")


@pytest.fixture(scope="session")
def page(run: Path) -> page_reader.Element:
    return page_reader.read(run / "report.html")


def test_nothing_points_outside(page: page_reader.Element) -> None:
    for element in page.everything():
        for name in LOADING:
            value = element.attributes.get(name, "")
            assert not value or value.startswith(("#", "data:")), f"<{element.tag} {name}={value[:60]}>"
    style = page.all("style")[0].text
    assert "url(" not in style and "@import" not in style
    (policy,) = [e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_every_chart_is_written_and_inlined(page: page_reader.Element, run: Path) -> None:
    assert {path.stem for path in (run / "charts").glob("*.svg")} == CHARTS
    assert {path.stem for path in (run / "charts").glob("*.png")} == CHARTS
    for name in CHARTS:
        assert (run / f"charts/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (run / f"charts/{name}.svg").read_text("utf-8").startswith("<svg")
    specs = {
        script.attributes["id"].removeprefix("spec-"): json.loads(script.text)
        for script in page.all("script")
        if script.attributes.get("type") == "application/json"
    }
    assert set(specs) == CHARTS
    for spec in specs.values():
        assert spec["width"] == "container" and spec["description"] and "$schema" not in spec
    assert {img.attributes["alt"] != "" for img in page.all("img")} == {True}
    assert len(page.all("figure")) == len(page.all("figcaption")) > 5


def test_hostile_texts_are_text(page: page_reader.Element) -> None:
    tags = {element.tag for element in page.everything()}
    assert tags.isdisjoint({"svg", "iframe", "object", "b2"})
    assert len([s for s in page.all("script") if s.attributes.get("type") != "application/json"]) == 1
    for element in page.everything():
        assert not any(name.startswith("on") for name in element.attributes), element.tag
    named = page.all("div", "changes")[0].text
    for text in fake_run.HOSTILE[:3]:
        assert " ".join(text.split()) in named
    assert "{{ 7*7 }}" in named, "template syntax in data is data"


def test_ids_are_unique_and_anchors_hold(page: page_reader.Element) -> None:
    ids = [element.attributes["id"] for element in page.everything() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link.attributes["href"].removeprefix("#") in ids


def test_facts_lost_and_gained_stand_by_name(page: page_reader.Element, run: Path) -> None:
    rows = [row.attributes["data-change"] for row in page.all("div", "changes")[0].all("tr") if row.attributes]
    tables = [pl.read_parquet(path) for path in sorted((run / "transitions").iterdir())]
    for change in ("lost", "gained"):
        assert rows.count(change) == sum((table["change"] == change).sum() for table in tables)


def without_pictures(run: Path) -> str:
    return PICTURE.sub("", (run / "report.html").read_text("utf-8"))


def test_building_again_changes_nothing(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "again"
    shutil.copytree(run, copy)
    first = without_pictures(copy)
    build(copy)
    assert without_pictures(copy) == first
    assert not list(copy.rglob("*.partial"))


def test_only_files_of_the_run_are_needed(run: Path, tmp_path: Path) -> None:
    """Moved elsewhere, without the models and the record, the run still tells its story."""
    bare = fake_run.write(tmp_path / "bare")
    shutil.rmtree(bare / "sets")
    (bare / "run.json").unlink()
    assert "What fine-tuning did to smollm2" in build(bare).read_text("utf-8")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("mastery", "Mastery was not scored in this run"),
        ("eval", "The base model was not asked the test facts"),
        ("transitions", "This run holds no transitions"),
        ("drift", "Divergence was not measured"),
        ("diff", "The weights were not compared"),
        ("sweep", "Restoration was not tried"),
    ],
)
def test_a_missing_part_is_left_out_with_a_sentence(tmp_path: Path, missing: str, said: str) -> None:
    run = fake_run.write(tmp_path / "run", facts=300)
    shutil.rmtree(run / missing)
    page = page_reader.read(build(run))
    assert said in page.text
    assert page.all("figure")


def test_one_fine_tune_and_no_sweep_is_enough(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run", facts=300, middle=False, sweep=False)
    page = page_reader.read(build(run))
    assert "Restoration was not tried" in page.text
    assert len(page.all("dl")[0].all("dt")) == 3
    assert "interpolat" not in page.all("section", "summary")[0].text.lower()


def test_facts_without_levels_are_not_split_by_level(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run", facts=300)
    shutil.rmtree(run / "mastery")
    for path in [*run.glob("eval/*/*.parquet"), *run.glob("drift/*/*.parquet"), *run.glob("transitions/*.parquet")]:
        table = pl.read_parquet(path)
        table.with_columns(level=pl.lit(None, pl.Int8)).write_parquet(path)
    page = page_reader.read(build(run))
    assert "no mastery level in this run" in page.text
    assert page.table("Test facts by change")


def test_bad_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        build(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"metrics\.json: no such file"):
        build(tmp_path)
    run = fake_run.write(tmp_path / "run", facts=300)
    (run / "sweep/curve.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match=r"curve\.parquet: not a readable Parquet file") as caught:
        build(run)
    assert "\n" not in str(caught.value)
    pl.DataFrame({"method": ["relative"]}).write_parquet(run / "sweep/curve.parquet")
    with pytest.raises(InputError, match=r"curve\.parquet: lacks the columns fraction, "):
        build(run)
    assert not (run / "report.html").exists()
    (run / "metrics.json").write_text("[]")
    with pytest.raises(InputError, match="a JSON object is expected"):
        build(run)


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    """Without Altair the command says what to install, and importing the room alone costs nothing."""
    code = (
        "import sys; sys.modules['altair'] = None\n"
        "import knowshift.report\n"
        "assert 'polars' not in sys.modules and 'jinja2' not in sys.modules\n"
        "from pathlib import Path\n"
        "from knowshift.errors import InputError\n"
        "try: knowshift.report.build(Path('.'))\n"
        "except InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip().endswith("pip install 'knowshift[report]'"), done.stderr


def test_every_command_is_one_the_command_line_takes(page: page_reader.Element) -> None:
    """Parsed by the real parser, options and values, without being run."""
    root = typer.main.get_command(app)
    lines = [line for block in page.all("pre") for line in block.all("code")[0].lines]
    used = "mastery select train eval drift diff restore merge demo report"
    assert {line.split()[1] for line in lines} == set(used.split())
    for line in lines:
        program, name, *arguments = shlex.split(line)
        assert program == "knowshift"
        command = root.get_command(None, name)
        command.make_context(name, arguments)
