"""The whole repair on tiny models that were really trained: harm planted and undone, none planted, mistakes refused."""

import json
import shutil

import polars as pl
import pytest
import small
import torch
from safetensors.torch import load_file

import knowshift
import tiny
from commands import refused, run
from knowshift.errors import InputError
from knowshift.models import load_model, load_tokenizer
from knowshift.repair import coefficients, search
from knowshift.repair.space import known
from knowshift.weights.merge.coefficients import Coefficients
from knowshift.weights.sweep import Sweep


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders by name: base, kept (task learned, nothing forgotten), harmed; the facts and the task."""
    folder = tmp_path_factory.mktemp("trained")
    small.base(folder / "base")
    small.kept(folder / "base", folder / "kept")
    _, masks = small.harmed(folder / "kept", folder / "harmed")
    facts, task = small.write(folder / "data")
    return {name: folder / name for name in ("base", "kept", "harmed")} | {"facts": facts, "task": task, "masks": masks}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))


def call(trained, out, tuned="harmed", **options):
    given = {"knowledge": trained["facts"], "task": trained["task"], "out": out, "budget": 1} | options
    return knowshift.repair(trained["base"], trained[tuned], **given)


def command(trained, out, base="base", tuned="harmed", **options):
    given = {"knowledge": trained["facts"], "task": trained["task"], "out": out, "budget": 1} | options
    flags = [word for name, value in given.items() for word in ("--" + name.replace("_", "-"), value)]
    return ("repair", trained.get(base, base), trained.get(tuned, tuned), *flags)


def test_harm_in_a_hundredth_of_the_weights_is_found_and_undone(trained, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*command(trained, out)) == 0
    said = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["outcome"] == "repaired" and metrics["sentence"] in said and str(out / "model") in said
    assert metrics["lost"] >= 10 and metrics["returned"] >= 0.95 * metrics["lost"]
    assert metrics["task"]["value"] >= -metrics["max_task_drop"]
    assert (out / "report.html").is_file() and (out / "run.json").is_file()
    # Measured again, by itself, the written model says what it said in memory.
    examples = pl.read_parquet(out / "examples.parquet")
    by_id = {fact.id: fact for fact in small.FACTS}
    assert examples.filter(kind="knowledge")["base_right"].sum() >= 0.9 * metrics["facts"]
    assert set(examples.filter(kind="knowledge")["id"]) <= by_id.keys()
    back = examples.filter(pl.col("base_right") & ~pl.col("tuned_right") & (pl.col("kind") == "knowledge"))
    assert (back.height, back["repaired_right"].sum()) == (metrics["lost"], metrics["returned"])
    # It is the harmed places that went back.
    written, harmed, base = (load_file(path / "model.safetensors") for path in
                             (out / "model", trained["harmed"], trained["base"]))  # fmt: skip
    hit = torch.cat([mask.flatten() for mask in trained["masks"].values()])
    moved = torch.cat([(written[name] != harmed[name]).flatten() for name in trained["masks"]])
    assert moved[hit].float().mean() > 0.9 > 10 * moved[~hit].float().mean()
    places = pl.read_parquet(out / "places.parquet")
    assert places["moved"].sum() == int(moved.sum())
    for name in written:
        assert ((written[name] == harmed[name]) | (written[name] == base[name])).all()
    # The race saved answers, and every figure of the frontier comes from the measurements.
    frontier = pl.read_parquet(out / "frontier.parquet")
    race = frontier.filter((pl.col("part") == "search") & ~pl.col("name").is_in(["base", "tuned"]))
    answers = int((race["facts"] + race["items"]).sum())
    assert metrics["search"]["answers"] == answers < metrics["search"]["answers_without_racing"]
    assert frontier.filter("chosen")["name"].unique().to_list() == [metrics["chosen"]]
    on_test = frontier.filter(chosen=True, part="test").row(0, named=True)
    assert on_test["knowledge"] == metrics["scores"]["repaired"]["knowledge"]

    # The same command goes on with what there is: nothing is asked again.
    files = {path: path.stat().st_mtime_ns for path in (out / "measured").rglob("*") if path.is_file()}
    assert run(*command(trained, out)) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "measured").rglob("*") if path.is_file()} == files
    again = json.loads((out / "metrics.json").read_text())
    assert {**again, "minutes": 0} == {**metrics, "minutes": 0}


def test_where_nothing_was_harmed_nothing_is_claimed(trained, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*command(trained, out, tuned="kept")) == 0
    assert "Nothing was lost" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["outcome"] == "nothing-lost" and metrics["model"] is None
    assert metrics["search"]["candidates"] == 0 and not (out / "model").exists()


def test_a_killed_search_goes_on(trained, tmp_path, monkeypatch):
    whole = call(trained, tmp_path / "whole")
    race = search.Search._race

    def killed(self, names):
        for name in names[:7]:
            self.bench.table(name, "search", 16, 16)
        raise KeyboardInterrupt

    monkeypatch.setattr(search.Search, "_race", killed)
    with pytest.raises(KeyboardInterrupt):
        call(trained, tmp_path / "out")
    assert not (tmp_path / "out/metrics.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/measured").rglob("*") if path.is_file()}
    monkeypatch.setattr(search.Search, "_race", race)
    monkeypatch.setattr(coefficients, "learn", None)  # it is not learned again
    resumed = call(trained, tmp_path / "out")
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert {**resumed, "minutes": 0} == {**whole, "minutes": 0}


def test_a_tiny_budget_still_ends_with_an_answer(trained, tmp_path):
    metrics = call(trained, tmp_path / "out", budget=0.001)
    own = metrics["search"]["rounds"]
    assert all(each["candidates"] <= search.FINALISTS for each in own) and metrics["sentence"]
    assert metrics["search"]["answers"] < call(trained, tmp_path / "more")["search"]["answers"]


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_what_is_written_is_what_was_measured(kind, tmp_path):
    base = tiny.checkpoint(tmp_path / "base", dtype=getattr(torch, kind))
    tuned = tiny.nudge(base, tmp_path / "tuned")
    model = load_model(tuned, dtype=kind)
    sweep = Sweep(model, base, tuned, region="all")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = [entry.name for entry, _ in sweep.places("all")]
    values = {name: number / len(names) for number, name in enumerate(names)}
    learned = coefficients.Candidate("coefficients-1-1", "coefficients", Coefficients(values), seed=3)
    changed = 0
    for number, candidate in enumerate([learned, *known(3)]):
        folder = tmp_path / f"{number}"
        candidate.write(base, tuned, folder, "---\ntags:\n- knowshift\n---\n")
        loaded = load_model(folder, dtype=kind).state_dict()
        with candidate.within(sweep):
            for name, value in model.state_dict().items():
                assert torch.equal(value, loaded[name]), (candidate.name, name)
        changed += any(not torch.equal(loaded[name], before[name]) for name in before)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert changed >= len(known())  # trimming may leave all updates of a half-changed model
    assert len({each.name for each in known()}) == len(known())


def nothing_left(out):
    assert not out.exists()


def test_mistakes_are_one_line_and_leave_nothing(trained, tmp_path, capsys):
    out = tmp_path / "out"
    assert "hold the same weights" in refused(capsys, *command(trained, out, tuned="base"))
    nothing_left(out)
    assert "seem to be swapped" in refused(capsys, *command(trained, out, base="kept", tuned="base"))
    nothing_left(out)
    five = tmp_path / "five.jsonl"
    five.write_text("".join(trained["task"].read_text().splitlines(True)[:5]))
    assert "5 prompts are too few" in refused(capsys, *command(trained, out, task=five))
    nothing_left(out)
    alien = tmp_path / "alien.jsonl"
    alien.write_text("".join(json.dumps({"question": f"moon {n}", "answer": f"zq{n}x"}) + "\n" for n in range(100)))
    assert "knows hardly any" in refused(capsys, *command(trained, out, knowledge=alien))
    nothing_left(out)
    wrong = tmp_path / "wrong.jsonl"
    lines = [{"prompt": prompt, "completion": " never said"} for prompt, _ in small.ITEMS]
    wrong.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "gets none of" in refused(capsys, *command(trained, out, task=wrong))
    nothing_left(out)
    assert "--budget" in refused(capsys, *command(trained, out, budget=0))
    assert "--task-metric" in refused(capsys, *command(trained, out, task_metric="bleu"))
    nothing_left(out)


def test_models_that_do_not_belong_together(trained, tmp_path, capsys):
    out = tmp_path / "out"
    other = tmp_path / "other"
    shutil.copytree(trained["harmed"], other)
    vocabulary = load_tokenizer(other)
    vocabulary.add_tokens(["<more>"])
    vocabulary.save_pretrained(other)
    assert "different tokenizers" in refused(capsys, *command(trained, out, tuned=other))
    nothing_left(out)
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "./no-such-base"}')
    (lora / "adapter_model.safetensors").write_bytes((trained["base"] / "model.safetensors").read_bytes())
    assert "adapter's base cannot be had" in refused(capsys, *command(trained, out, tuned=lora))
    nothing_left(out)


def test_the_function_can_be_called_twice(trained, tmp_path):
    for _ in range(2):
        with pytest.raises(InputError, match="the same weights"):
            call(trained, tmp_path / "out", tuned="base")
