"""Plans: read with the line named where they are wrong, written with every key explained, turned into cells."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.mastery.mix import counts, read_mix
from knowshift.study.cell import ordered
from knowshift.study.grid import Grid, grid
from knowshift.study.ground import Ground, Source, split_facts
from knowshift.study.plan import Plan
from knowshift.study.planfile import PRESETS, parse_plan, preset, read_plan, write_commented

WRONG = {
    "sizes: [0]": "p.yaml:1: sizes.0:",
    "models: [a]\nsize: [1]": "p.yaml:2: size: no such key",
    "sizes: [60]\nseeds: [0]\nsizes: [90]": "p.yaml:3: sizes stands twice",
    "eval:\n  forms: [trained, spoken]": "p.yaml:2: eval.forms.1:",
    "methods: [lora, {method: nope}]": "p.yaml: --method nope: 'nope' is unknown",
    "methods: [{method: sft, set: {lora.rank: 8}}]": "p.yaml: --set lora.rank: has no effect",
    "train: {seed: 1}": "train: seed is not set here",
    "train: {learning_rte: 1}": "--learning-rte",
    "mastery: {samples: 0}": "--samples 0",
    "mastery: {seed: 4}": "mastery: seed is not set here: seed of the plan is",
    "methods: [{method: lora, sizes: [7]}]": "methods: lora: sizes: 7 is not among the plan's sizes",
    "sweep: {methods: [lora]}": "sweep: methods: 'lora' is not among the plan's methods",
    "sweep: {rivals: [{method: dare, set: {p: 1}}]}": "merge dare has no option --p",
    "sweep: {rivals: [interpolate]}": "interpolate is measured without being named",
    "levels: []": "there is nothing to train on",
    "levels: [1, 1]": "stands twice",
    "mixes: ['0:x']": "--mix 0:x",
    "instruct: {other: chat}": "'other' is not among the models",
    "region: nowhere": "nowhere",
    "- 1": "a plan with keys",
    "a: [": "p.yaml:1: not valid YAML",
    "": "a plan with keys",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_plan(text, "p.yaml")
    assert WRONG[text] in str(caught.value)
    assert str(caught.value).startswith("p.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PRESETS)
def test_a_written_plan_says_what_its_preset_says_and_explains_every_key(tmp_path: Path, name: str) -> None:
    path = tmp_path / "plan.yaml"
    write_commented(path, name)
    assert read_plan(path) == preset(name)
    lines = path.read_text("utf-8").splitlines()
    for key, field in Plan.model_fields.items():
        (place,) = [number for number, line in enumerate(lines) if line.startswith(f"{key}:")]
        assert field.description
        assert lines[place - 1] == f"# {field.description}"
    assert set(yaml.safe_load(path.read_text("utf-8"))) == set(Plan.model_fields)
    with pytest.raises(InputError, match="there already"):
        write_commented(path, name)


def test_the_paper_s_preset_is_the_paper_s_grid() -> None:
    plan = preset("paper")
    assert plan.levels == (0, 1, 2, 3, 4)
    assert plan.sizes == (60, 120, 240, 480, 960, 1920, "all")
    assert len(plan.seeds) == 5
    assert (plan.mastery.templates, plan.mastery.samples, plan.mastery.temperature) == (21, 10, 0.7)
    assert (plan.mastery.max_new_tokens, plan.eval.max_new_tokens) == (32, 16)
    sft = [cell for cell in _grid(plan).cells if cell.kind == "train" and cell.labels["method"] == "sft"]
    assert len([cell for cell in sft if cell.labels["mix"] is None]) == 175
    assert sft[0].options["train"]["learning_rate"] == 1e-5
    assert (sft[0].options["train"]["batch_size"], sft[0].options["train"]["epochs"]) == (8, 1)


def _source(name: str) -> Source:
    return Source(name * 8, (Fact(name, "Q?", ("A",)),))


GROUND = Ground(
    {"base": "sha256:1", "smollm2": "sha256:1"},
    {name: _source(name) for name in ("train", "validation", "test")},
    {name: _source(f"shown {name}") for name in ("validation", "test")},
)
SMALL: dict[str, Any] = {"models": ("base",), "levels": (0, 1), "sizes": (10, 20), "seeds": (0, 1)}


def _grid(plan: Plan, held: dict[int, int] | None = None, ground: Ground = GROUND) -> Grid:
    return grid(plan, ground, lambda cell: held)


def test_the_grid_has_every_combination_with_its_measurements() -> None:
    cells = ordered(_grid(Plan(**SMALL)).cells)
    kinds = Counter(cell.kind for cell in cells)
    models = 2 * 2 * 2
    assert kinds == {
        "mastery": 3,
        "select": models,
        "train": models,
        "eval": 3 * 2 + 2 * models,
        "drift": models,
        "diff": models,
        "sweep": models,
        "confirm": models,
    }


def test_only_confirm_and_measurement_read_test_and_choosing_reads_validation() -> None:
    for cell in _grid(Plan(**SMALL)).cells:
        splits = {one.labels["split"] for one in cell.inputs if one.kind == "mastery"}
        assert (
            splits
            == {
                "mastery": set(),
                "select": {"train"},
                "train": set(),
                "diff": set(),
                "sweep": {"validation"},
                "confirm": {"test"},
                "drift": {"test"},
                "eval": {cell.labels.get("split")},
            }[cell.kind]
        ), cell.kind


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({"eval": {"max_new_tokens": 3}}, {"mastery", "select", "train", "drift", "diff"}),
        ({"diff": {"fractions": (0.5,)}}, {"mastery", "select", "train", "drift", "eval", "sweep", "confirm"}),
        ({"drift": {"modes": ("paper",)}}, {"mastery", "select", "train", "diff", "eval", "sweep", "confirm"}),
        ({"train": {"learning_rate": 1e-3}}, {"mastery", "select"}),
        ({"sweep": {"fractions": (0.5,)}}, {"mastery", "select", "train", "drift", "diff", "eval"}),
        ({"keep_models": True}, {"mastery", "select", "train", "drift", "diff", "eval", "sweep", "confirm"}),
    ],
)
def test_a_changed_key_renames_only_what_depends_on_it(change: dict[str, Any], stays: set[str]) -> None:
    before = {cell.key: cell.kind for cell in _grid(Plan(**SMALL)).cells}
    after = {cell.key: cell.kind for cell in _grid(Plan(**SMALL, **change)).cells}
    kinds = set(before.values())
    trained = {key for key, kind in before.items() if kind in stays}
    base_evals = {cell.key for cell in _grid(Plan(**SMALL)).cells if cell.labels["role"] == "base"}
    assert trained <= after.keys()
    gone = {kind for key, kind in before.items() if key not in after and key not in base_evals}
    assert gone == kinds - stays


def test_more_test_facts_leave_what_was_trained() -> None:
    other = Ground(GROUND.models, {**GROUND.splits, "test": _source("more")}, GROUND.shown)
    before = {cell.key for cell in _grid(Plan(**SMALL)).cells if cell.kind in ("select", "train", "diff", "sweep")}
    assert before <= {cell.key for cell in _grid(Plan(**SMALL), ground=other).cells}


@pytest.mark.parametrize("short", ["largest", "missing"])
def test_a_level_with_too_few_facts_is_shown(short: Any) -> None:
    held = {0: 100, 1: 15, 2: 7, 3: 0, 4: 0}
    made = _grid(Plan(**{**SMALL, "levels": (0, 1, 2, 3), "sizes": (10, 20, "all"), "short_levels": short}), held)
    sizes = {
        level: sorted({cell.labels["size"] for cell in made.cells if cell.labels.get("level") == level})
        for level in (0, 1, 2, 3)
    }
    assert sizes == {0: [10, 20, 100], 1: [10, 15], 2: [7], 3: []}
    assert len(made.missing) == 1 + 2 + 3
    trained = {one.labels["asked_size"] for one in made.cells if one.kind == "train" and one.labels["level"] == 1}
    assert trained == ({"10", "20"} if short == "largest" else {"10", "all"})
    assert all("holds" in one.why for one in made.missing)


def test_a_mix_is_filled_as_far_as_its_scarcest_level_goes() -> None:
    held = {0: 30, 1: 7, 2: 0, 3: 0, 4: 0}
    made = _grid(Plan(**{**SMALL, "levels": (), "mixes": ("0,1",), "sizes": ("all",)}), held)
    (size,) = {cell.labels["size"] for cell in made.cells if cell.kind == "train"}
    share = read_mix("0,1")
    assert all(counts(share, size)[level] <= held[level] for level in share)
    assert any(counts(share, size + 1)[level] > held[level] for level in share)


def test_filters_choose_what_is_trained_and_measured() -> None:
    plan = Plan(
        **SMALL,
        methods=("sft", {"method": "lora", "sizes": (20,), "seeds": (0,)}),
        sweep={"sizes": (20,), "methods": ("sft",)},
        drift={"modes": ()},
        diff={"enabled": False},
    )
    cells = _grid(plan).cells
    assert {(c.labels["size"], c.labels["seed"]) for c in cells if c.labels.get("method") == "lora"} == {(20, 0)}
    assert {(c.labels["size"], c.labels["method"]) for c in cells if c.kind == "sweep"} == {(20, "sft")}
    assert not [cell for cell in cells if cell.kind in ("drift", "diff")]
    assert all(cell.options["train"]["merge"] for cell in cells if cell.kind == "train" and "lora" in str(cell.options))


def test_a_filter_by_size_holds_for_what_stands_for_that_size() -> None:
    plan = Plan(**{**SMALL, "levels": (1,)}, sweep={"sizes": (20,)})
    made = _grid(plan, {0: 0, 1: 10, 2: 0, 3: 0, 4: 0})
    assert {cell.labels["size"] for cell in made.cells if cell.kind == "sweep"} == {10}


def test_facts_of_a_split_do_not_depend_on_how_many_others_are_taken() -> None:
    few = split_facts(Plan(train_facts=20, validation_facts=5, test_facts=5))
    more = split_facts(Plan(train_facts=30, validation_facts=5, test_facts=5))
    assert few["test"].digest == more["test"].digest
    assert set(few["train"].facts) < set(more["train"].facts)
    assert {fact.domain for fact in few["train"].facts} == {"id"}
    assert len(few["test"].facts) == 10
