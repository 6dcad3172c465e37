"""A search for facts of a level ends with the set that scoring everything would give, and says how common it is."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy.stats import beta

from commands import refused, run
from knowshift import steps
from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.mastery.search import Search
from knowshift.mastery.select import select
from knowshift.mastery.share import Looked, estimate_share
from knowshift.mastery.until import candidates, find

# A made-up source: topics with facts, and the level each fact would turn out to have.
worlds = st.dictionaries(
    st.text("abcdef", max_size=2), st.lists(st.integers(0, 2), min_size=1, max_size=25), min_size=1, max_size=6
)


def facts_and_levels(world: dict[str, list[int]]) -> tuple[list[Fact], dict[str, int]]:
    facts, levels = [], {}
    for topic, own in world.items():
        for index, level in enumerate(own):
            facts.append(Fact(f"{topic}:{index}", f"What of {index}?", ("x",), topic=topic, split="train"))
            levels[facts[-1].id] = level
    return facts, levels


def table(facts: Sequence[Fact], levels: dict[str, int]) -> pl.DataFrame:
    rows = [(f.id, f.topic, f.question, list(f.answers), f.split, f.domain, levels[f.id]) for f in facts]
    return pl.DataFrame(rows, ["id", "topic", "question", "answers", "split", "domain", "level"], orient="row")


@settings(max_examples=300, deadline=None)
@given(worlds, st.integers(1, 40), st.integers(0, 5), st.data())
def test_the_set_is_the_one_that_scoring_everything_gives(
    world: dict[str, list[int]], wanted: int, seed: int, data: st.DataObject
) -> None:
    facts, levels = facts_and_levels(world)
    before = data.draw(st.lists(st.sampled_from(facts), unique=True, max_size=8))
    asked: list[list[str]] = []

    def score(some: Sequence[Fact]) -> pl.DataFrame:
        asked.append([fact.id for fact in some])
        return table(some, levels)

    scored, search = find(score, facts, level=1, wanted=wanted, seed=seed, before=before)
    whole = table(facts, levels)
    held = list(levels.values()).count(1)
    assert search.found == min(wanted, held)
    assert search.facts == len(facts)
    for one, more in itertools.pairwise(asked):  # what is asked together grows at its end alone
        assert more[: len(one)] == one and len(set(more)) == len(more)
    assert asked[-1][: len(before)] == [fact.id for fact in before]
    if held >= wanted:
        choice = {"level": 1, "size": wanted, "seed": seed}
        assert_frame_equal(select(scored, **choice), select(whole, **choice))
    else:
        assert search.looked == len(facts)


@settings(max_examples=100, deadline=None)
@given(worlds, st.integers(1, 20))
def test_no_topic_is_asked_that_owes_nothing(world: dict[str, list[int]], wanted: int) -> None:
    order = {topic: [f"{topic}:{index}" for index in range(len(own))] for topic, own in world.items()}
    levels = {fact: level for topic, own in world.items() for fact, level in zip(order[topic], own, strict=True)}
    search = Search(order, wanted)
    seen: set[str] = set()
    while batch := search.next():
        assert not seen & set(batch)
        seen |= set(batch)
        search.tell({fact: levels[fact] == 1 for fact in batch})
        if search.found == wanted:
            assert search.next() == []
    assert search.looked == len(seen)


def test_hardly_more_is_looked_at_than_must_be() -> None:
    """The least possible is to stop at the very last fact that each topic owed."""
    generator = np.random.default_rng(0)
    looked = least = 0
    for _ in range(30):
        levels = [generator.random(3000) < share for share in np.linspace(0.05, 0.6, 10)]
        search = Search({str(topic): [(topic, place) for place in range(3000)] for topic in range(10)}, 120)
        steps_taken = 0
        while batch := search.next():
            search.tell({fact: bool(levels[fact[0]][fact[1]]) for fact in batch})
            steps_taken += 1
        looked += search.looked
        least += sum(topic.looked for topic in search.seen())
        assert steps_taken < 20
    assert least <= looked < 1.15 * least


def test_no_split_named_means_any() -> None:
    some = [Fact("a", "q", ("x",)), Fact("b", "q", ("x",), domain="ood")]
    assert [fact.id for fact in candidates(some, split="train", domain="id")] == ["a"]
    some.append(Fact("c", "q", ("x",), split="train"))
    assert [fact.id for fact in candidates(some, split="train", domain="id")] == ["c"]


def searched(sizes: Sequence[int], shares: Sequence[float], wanted: int, seed: int) -> tuple[float, list[list[Looked]]]:
    """The true share, and what 400 searches in random order saw."""
    generator = np.random.default_rng(seed)
    held = [round(size * share) for size, share in zip(sizes, shares, strict=True)]
    runs = []
    for _ in range(400):
        levels = [generator.permutation(size) < count for size, count in zip(sizes, held, strict=True)]
        search = Search({str(t): [(t, place) for place in range(size)] for t, size in enumerate(sizes)}, wanted)
        while batch := search.next():
            search.tell({fact: bool(levels[fact[0]][fact[1]]) for fact in batch})
        assert search.found == wanted
        runs.append(search.seen())
    return sum(held) / sum(sizes), runs


@pytest.mark.parametrize(
    ("sizes", "shares", "wanted"),
    [
        ([800] * 10, list(np.linspace(0.1, 0.5, 10)), 60),
        ([2000], [0.3], 6),
        ([1000, 200, 50, 3000] * 3, [0.02, 0.1, 0.06, 0.03] * 3, 60),  # some topics run out
        ([100] * 10, [0.1] * 10, 80),  # most of the source is looked at
        ([500] * 5, [0.9, 0.95, 0.99, 0.85, 0.8], 30),
    ],
)
def test_the_share_is_unbiased_and_its_interval_holds(sizes: list[int], shares: list[float], wanted: int) -> None:
    truth, runs = searched(sizes, shares, wanted, seed=1)
    found = [estimate_share(run) for run in runs]
    values = np.array([share.value for share in found])
    error = values.std() / len(runs) ** 0.5
    assert abs(values.mean() - truth) < 4 * error
    covered = np.mean([share.low <= truth <= share.high for share in found])
    assert covered >= 0.93  # 95 % less 400 runs' chance
    if sizes == [800] * 10:  # the share among those looked at is not it: it errs upward, and this test sees that
        naive = np.array([sum(t.found / t.looked for t in run) / len(run) for run in runs])
        assert naive.mean() - truth > 10 * error


def test_what_is_known_of_a_share() -> None:
    assert estimate_share([Looked(40, 40, 10)]).low == estimate_share([Looked(40, 40, 10)]).high == 0.25
    mixed = estimate_share([Looked(40, 40, 10), Looked(40, 30, 5)])
    assert mixed.low < mixed.value < mixed.high
    every = estimate_share([Looked(1000, 20, 20)])
    assert every.value == every.high == 1 and every.low == pytest.approx(beta.ppf(0.025, 20, 1))
    with pytest.raises(ValueError, match="looked at"):
        estimate_share([Looked(10, 0, 0)])


QUICK = ["--templates", "5", "--samples", "3", "--temperature", "1.0", "--max-new-tokens", "6", "--no-slick"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Facts that a random model knows now and then; of more splits and domains than are wanted."""
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    letters = "abcdefghijklmnopqrstuvwxyz"
    facts = [
        Fact(f"{a}{b}{c}", f"Say {a}, {b} and {c}?", (a if c in "pq" else a + b,), topic=f"topic {c}", split=split)
        for a in letters
        for b in "aeiou"
        for c, split in (("p", "train"), ("q", "train"), ("r", "train"), ("p", "test"))[: 4 if b == "a" else 3]
        if not (split == "test" and a > "m")
    ]
    facts = [Fact(f"{f.id}{f.split[1]}", f.question, f.answers, f.topic, split=f.split) for f in facts]
    facts += [Fact(f"ood {a}", f"Say {a}?", (a,), topic="topic p", split="train", domain="ood") for a in letters]
    write_jsonl(path, (fact.to_json() for fact in facts))
    return path


@pytest.fixture(scope="module")
def scored(base_folder: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything scored."""
    out = tmp_path_factory.mktemp("scored") / "run"
    assert main(["mastery", str(base_folder), "--facts", str(source), "--out", str(out), "--seed", "4", *QUICK]) == 0
    return out


def test_as_if_everything_had_been_scored(
    base_folder: Path, source: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = pl.read_parquet(scored / "mastery.parquet")
    pool = whole.filter(split="train", domain="id")
    level = 1
    assert 40 < pool.filter(level=level).height < pool.height / 2
    began = ["--model", base_folder, "--facts", source, *QUICK]
    folder, file = tmp_path / "run", tmp_path / "until.jsonl"
    for wanted, settings_given in ((12, began), (30, [])):  # the second goes on with the first, and needs no settings
        capsys.readouterr()
        assert (
            run("select", folder, "--level", level, "--until", wanted, "--seed", 4, "--out", file, *settings_given) == 0
        )
        said = capsys.readouterr().out
        assert run("select", scored, "--level", level, "--size", wanted, "--seed", 4, "--out", tmp_path / "size") == 0
        assert file.read_bytes() == (tmp_path / "size").read_bytes()
        looked = pl.read_parquet(folder / "mastery.parquet")
        assert f"looked at {looked.height} of {pool.height} facts" in said
        assert f"{wanted} facts of level {level}" in said and "95 % interval" in said
        assert wanted < looked.height < 0.9 * pool.height
        assert set(looked["split"]) == {"train"} and set(looked["domain"]) == {"id"}
        same = looked.join(whole, on="id", how="inner").select(same=pl.col("hits") == pl.col("hits_right"))
        assert same.height == looked.height and same["same"].mean() > 0.99
        record = json.loads((folder / "run.json").read_text())
        assert record["command"] == "select" and record["seed"] == 4
        assert {"samples": 3, "until": wanted, "level": level}.items() <= record["options"].items()
        assert record["search"]["looked"] == looked.height
    assert record["continues"]["options"]["until"] == 12
    assert record["options"]["tensor_parallel"] == 1
    capsys.readouterr()
    assert run("select", folder, "--level", level, "--size", 30, "--seed", 4, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_what_a_mastery_run_scored_is_kept_and_not_paid_again(
    base_folder: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert run("mastery", base_folder, "--facts", source, "--out", folder, "--limit", 60, *QUICK) == 0
    earlier = pl.read_parquet(folder / "mastery.parquet")
    drawn: list[str] = []
    sample = TransformersEngine.sample

    def counting(self, prompts, **options):
        drawn.extend(prompt.key for prompt in prompts)
        return sample(self, prompts, **options)

    monkeypatch.setattr(TransformersEngine, "sample", counting)
    assert run("select", folder, "--level", 0, "--until", 40, "--out", tmp_path / "a") == 0
    now = pl.read_parquet(folder / "mastery.parquet")
    assert_frame_equal(now.head(60), earlier)
    new = set(now["id"][60:])
    assert new and len(drawn) == len(set(drawn)) == 5 * len(new)
    assert {key.split("\x1f")[0] for key in drawn} == new
    drawn.clear()
    assert run("select", folder, "--level", 0, "--until", 40, "--out", tmp_path / "b") == 0
    assert not drawn and (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert_frame_equal(pl.read_parquet(folder / "mastery.parquet"), now)


def test_another_split_and_domain(base_folder: Path, source: Path, tmp_path: Path) -> None:
    began = ["--model", base_folder, "--facts", source, *QUICK]
    for split, domain in (("test", "id"), ("train", "ood")):
        folder = tmp_path / f"{split}-{domain}"
        wanted = ["--level", 1, "--split", split, "--domain", domain, "--out", folder / "train.jsonl"]
        assert run("select", folder, "--until", 2, *wanted, *began) == 0
        looked = pl.read_parquet(folder / "mastery.parquet")
        assert set(looked["split"]) == {split} and set(looked["domain"]) == {domain}
        lines = (folder / "train.jsonl").read_text()
        assert run("select", folder, "--size", 2, *wanted) == 0
        assert (folder / "train.jsonl").read_text() == lines


def test_a_source_that_runs_out(
    base_folder: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "run", tmp_path / "train.jsonl"
    began = ["--model", base_folder, "--facts", source, *QUICK, "--out", file]
    error = refused(capsys, "select", folder, "--level", 4, "--until", 20, "--domain", "ood", *began)
    assert "--until 20: all 26 were looked at" in error
    assert not file.exists() and pl.read_parquet(folder / "mastery.parquet").height == 26
    assert "holds 26 facts" in refused(
        capsys, "select", tmp_path / "new", "--level", 4, "--until", 27, "--domain", "ood", *began
    )
    assert not (tmp_path / "new").exists()  # nothing was scored in vain


def test_refusals(
    base_folder: Path,
    tuned_folder: Path,
    source: Path,
    scored: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to = ["--level", 1, "--out", tmp_path / "train.jsonl"]
    assert "give --size N" in refused(capsys, "select", scored, *to)
    assert "exclude each other" in refused(capsys, "select", scored, *to, "--size", 2, "--until", 2)
    assert "--samples has no effect without --until" in refused(
        capsys, "select", scored, *to, "--size", 2, "--samples", 2
    )
    assert "--tensor-parallel has no effect without --until" in refused(
        capsys, "select", scored, *to, "--size", 2, "--tensor-parallel", 2
    )
    assert "--tensor-parallel is for --engine vllm" in refused(
        capsys, "select", scored, *to, "--until", 2, "--tensor-parallel", 2
    )
    assert "--level must be" in refused(capsys, "select", scored, "--level", 7, *to[2:], "--until", 2)
    assert "--domain must be" in refused(capsys, "select", scored, *to, "--until", 2, "--domain", "wide")
    assert "holds 0 facts of split" in refused(capsys, "select", scored, *to, "--until", 2, "--split", "dev")
    assert "give --model" in refused(capsys, "select", tmp_path / "new", *to, "--until", 2)
    assert "give --facts" in refused(capsys, "select", tmp_path / "new", *to, "--until", 2, "--model", base_folder)
    assert "--samples 4" in refused(capsys, "select", scored, *to, "--until", 2, "--samples", 4)
    assert "another model" in refused(capsys, "select", scored, *to, "--until", 2, "--model", tuned_folder)
    assert "which the mastery run has scored" in refused(
        capsys, "select", scored, *to, "--until", 2, "--facts", "world", "--domain", "id"
    )
    assert "this is a file" in refused(capsys, "select", source, *to, "--until", 2)
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/run.json").write_text('{"command": "eval", "options": {}, "models": {}}')
    assert "not the record of a mastery run" in refused(capsys, "select", tmp_path / "eval", *to, "--until", 2)
    assert not (tmp_path / "train.jsonl").exists()
    with pytest.raises(TypeError, match="sampels"):
        steps.select_until(scored, tmp_path / "train.jsonl", level=1, until=2, sampels=3)
    with pytest.raises(InputError, match="--until must be at least 1"):
        steps.select_until(scored, tmp_path / "train.jsonl", level=1, until=0)


def test_killed_it_ends_the_same(base_folder: Path, source: Path, tmp_path: Path) -> None:
    def command(name: str) -> list[str]:
        script = "import sys; from knowshift.cli import main; sys.exit(main(sys.argv[1:]))"
        options = ["--level", "1", "--until", "30", "--rows", "16", *QUICK, "--out", str(tmp_path / f"{name}.jsonl")]
        place = [str(tmp_path / name), "--model", str(base_folder), "--facts", str(source)]
        return [sys.executable, "-c", script, "select", *place, *options]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    parts = lambda: len(list((tmp_path / "killed/store").rglob("*.parquet")))  # noqa: E731
    process = subprocess.Popen(command("killed"), env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while parts() < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.jsonl").exists() and not (tmp_path / "killed/run.json").exists()
    for name in ("killed", "whole"):
        assert subprocess.run(command(name), env=environment, stdout=subprocess.DEVNULL).returncode == 0
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    tables = [pl.read_parquet(tmp_path / name / "mastery.parquet") for name in ("killed", "whole")]
    assert_frame_equal(*tables)
