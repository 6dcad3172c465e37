"""Cells: what their names depend on, when they count as done, and what is done again."""

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowshift.errors import InputError
from knowshift.study import index
from knowshift.study.cell import Cell, Task, ordered
from knowshift.study.marks import DONE, read_done
from knowshift.study.run import at_work, status
from knowshift.study.work import MODEL
from stubs import Inline, diamonds, results, study

OPTIONS = st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=4)


@given(OPTIONS, OPTIONS)
def test_names_are_equal_where_options_are(one: dict, other: dict) -> None:
    assert (Cell("stub", one).key == Cell("stub", other).key) == (one == other)
    assert Cell("stub", dict(reversed(one.items()))).key == Cell("stub", one).key


def test_a_name_depends_on_kind_options_and_inputs_but_not_on_places_and_labels() -> None:
    base = Cell("stub", {"n": 1})
    model = Cell("stub-model", {"weight": 1}, (base,))
    cell = Cell("stub", {"n": 2}, (model,))
    assert cell.key == Cell("stub", {"n": 2}, (model,), {"model": "/else"}, {"level": 3}).key
    others = [
        Cell("stub", {"n": 2}),
        Cell("stub", {"n": 3}, (model,)),
        Cell("stub-model", {"n": 2}, ()),
        Cell("stub", {"n": 2}, (Cell("stub-model", {"weight": 2}, (base,)),)),
        Cell("stub", {"n": 2}, (Cell("stub-model", {"weight": 1}, (Cell("stub", {"n": 9}),)),)),
    ]
    assert len({cell.key, *(other.key for other in others)}) == 1 + len(others)


def test_two_inputs_of_one_kind_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two inputs"):
        Cell("stub", {}, (Cell("stub", {"n": 1}), Cell("stub", {"n": 2})))


def test_inputs_come_before_what_reads_them_and_each_cell_once() -> None:
    cells = ordered(diamonds(3))
    place = {cell.key: number for number, cell in enumerate(cells)}
    assert len(place) == len(cells) == 15
    assert all(place[one.key] < place[cell.key] for cell in cells for one in cell.inputs)


def test_a_task_survives_json() -> None:
    task = diamonds(1)[1].as_task()
    assert Task(**json.loads(json.dumps(task.as_json()))) == task


def test_nothing_is_done_twice_and_a_changed_option_redoes_only_what_depends_on_it(tmp_path: Path) -> None:
    table, begun = study(tmp_path, diamonds(2))
    assert table["state"].to_list() == ["done"] * 10
    assert len(begun) == 10
    assert study(tmp_path, diamonds(2))[1] == []
    _, more = study(tmp_path, diamonds(3))
    assert len(more) == 5
    changed = diamonds(2)
    left = changed[1].inputs[0]
    other = Cell("stub", {"n": 0, "last": "another"}, changed[1].inputs)
    _, again = study(tmp_path, [*changed, other])
    # The new cell, and the model it reads, which had been removed; never what was measured of that before.
    assert again == [changed[1].inputs[1].key, other.key]
    assert left.key not in again


def test_models_are_removed_once_read_and_kept_on_request(tmp_path: Path) -> None:
    study(tmp_path / "gone", diamonds(2))
    assert not list(tmp_path.glob(f"gone/cells/*/*/{MODEL}"))
    study(tmp_path / "kept", diamonds(2), keep_models=True)
    assert len(list(tmp_path.glob(f"kept/cells/*/*/{MODEL}"))) == 2


def test_a_model_is_never_more_than_one_ahead(tmp_path: Path) -> None:
    """With one worker a model is read to the end before the next is made."""
    most = 0

    class Counting(Inline):
        def ended(self, timeout: float) -> list:
            nonlocal most
            most = max(most, len(list(tmp_path.glob(f"cells/*/*/{MODEL}"))))
            return super().ended(timeout)

    study(tmp_path, diamonds(5), Counting)
    assert most == 1


@pytest.mark.parametrize("harm", ["bytes", "length", "gone", "mark"])
def test_a_damaged_file_is_noticed_and_its_cell_done_again(tmp_path: Path, harm: str) -> None:
    cells = diamonds(2)
    study(tmp_path, cells)
    before = results(tmp_path)
    victim = cells[0].folder(tmp_path)
    file = victim / "stub.json"
    if harm == "bytes":
        file.write_bytes(file.read_bytes().replace(b"0", b"1", 1))
    elif harm == "length":
        file.write_bytes(b"")
    elif harm == "gone":
        file.unlink()
    else:
        (victim / DONE).write_text("{")
    _, again = study(tmp_path, cells)
    assert again[-1] == cells[0].key
    assert len(again) == 2  # and the model it reads
    assert results(tmp_path) == before


def test_what_a_model_made_anew_differs_in_is_measured_again(tmp_path: Path) -> None:
    """A model that comes out otherwise (another processor) would leave figures of two models side by side."""
    cells = diamonds(1)
    study(tmp_path, cells)
    model = cells[0].inputs[0]
    mark = model.folder(tmp_path) / DONE
    made = read_done(model.folder(tmp_path), model.key).result
    # As if it had been made, and everything been measured, elsewhere.
    for cell in ordered(cells):
        path = cell.folder(tmp_path) / DONE
        path.write_text(path.read_text().replace(made, "sha256:other"))
    assert "other" in mark.read_text()
    assert study(tmp_path, cells)[1] == []  # consistent, so done
    extra = Cell("stub", {"extra": 1}, (model,))
    _, again = study(tmp_path, [*cells, extra])
    assert set(again) == {model.key, extra.key, *(cell.key for cell in cells), cells[1].inputs[0].key}


def test_a_failure_stops_only_what_reads_it_and_is_tried_again(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    bad = Cell("stub", {"n": "bad"}, (), {"broken": str(broken)})
    blocked = Cell("stub-model", {"weight": 5}, (bad,))
    with pytest.raises(InputError, match=r"1 cell failed .*status.*error\.txt: broken, as long as") as caught:
        study(tmp_path / "out", [blocked, *diamonds(1)])
    assert "\n" not in str(caught.value)
    table = status(tmp_path / "out")
    states = dict(zip(table["key"], table["state"], strict=True))
    assert states[bad.key] == "failed"
    assert states[blocked.key] == "waiting"
    assert table.filter(pl.col("state") == "done").height == 5
    assert table.filter(pl.col("key") == bad.key)["error"].item() == "broken, as long as that file is there"
    assert "Traceback" in (bad.folder(tmp_path / "out") / "error.txt").read_text()
    broken.unlink()
    table, begun = study(tmp_path / "out", [blocked, *diamonds(1)])
    assert begun == [bad.key, blocked.key]
    assert table["state"].unique().to_list() == ["done"]
    assert not (bad.folder(tmp_path / "out") / "error.txt").exists()


def test_the_index_is_rebuilt_from_the_folders_alone(tmp_path: Path) -> None:
    table, _ = study(tmp_path, diamonds(2))
    (tmp_path / index.INDEX).unlink()
    assert status(tmp_path).equals(table)
    assert table.schema == pl.Schema(index.SCHEMA)
    assert all((tmp_path / folder / DONE).is_file() for folder in table["folder"])


def test_two_at_once_on_one_folder_are_refused(tmp_path: Path) -> None:
    with at_work(tmp_path), pytest.raises(InputError, match="at work in this folder already"), at_work(tmp_path):
        pass
    with at_work(tmp_path):
        pass


def test_a_folder_that_is_no_study_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study's folder"):
        status(tmp_path)
