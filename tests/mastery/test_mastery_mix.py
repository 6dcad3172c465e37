"""Sets of several levels: exact shares at every size, each level's part the set that level alone gives."""

import itertools
import json
from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import refused, run
from knowshift.errors import InputError
from knowshift.mastery.levels import Curriculum, read_levels, spelled
from knowshift.mastery.mix import counts, in_order, read_mix, select_mix, spelled_mix, turns
from knowshift.mastery.select import select

levels = st.sets(st.integers(0, 4), min_size=1).map(lambda found: tuple(sorted(found)))
mixes = st.dictionaries(st.integers(0, 4), st.integers(1, 30), min_size=1).map(
    lambda parts: {level: Fraction(part, sum(parts.values())) for level, part in sorted(parts.items())}
)


def table(per_level: int = 40, topics: str = "abc") -> pl.DataFrame:
    """``per_level`` facts of every level, over topics of unequal sizes."""
    rows = [
        {
            "id": f"{level}:{index}",
            "topic": topics[min(index % (len(topics) + 1), len(topics) - 1)],
            "question": f"What of {index}?",
            "answers": [f"answer {index}"],
            "split": "train",
            "domain": "id",
            "level": level,
        }
        for level in range(5)
        for index in range(per_level)
    ]
    return pl.DataFrame(rows)


@given(levels)
def test_levels_are_read_as_they_are_spelled(wanted: tuple[int, ...]) -> None:
    assert read_levels(spelled(wanted)) == wanted


def test_levels_in_words() -> None:
    assert read_levels("1-3") == (1, 2, 3) and read_levels(" 4, 0-1") == (0, 1, 4)
    assert spelled((1, 2, 3)) == "1-3" and spelled((0, 1)) == "0,1" and spelled((0, 2, 3)) == "0,2,3"


@pytest.mark.parametrize("text", ["", "5", "-1", "3-1", "0-5", "two", "1;2", "1-", "١"])
def test_levels_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--level must be 0 to 4"):
        read_levels(text)


@given(mixes)
def test_a_mix_is_read_as_it_is_spelled(mix: dict[int, Fraction]) -> None:
    assert read_mix(spelled_mix(mix)) == mix


def test_a_mix_in_words() -> None:
    assert read_mix("0:0.5,2:0.5") == {0: Fraction(1, 2), 2: Fraction(1, 2)}
    assert read_mix("2:3, 0:1") == {0: Fraction(1, 4), 2: Fraction(3, 4)}
    assert read_mix("0-4") == dict.fromkeys(range(5), Fraction(1, 5))
    assert read_mix("1,2-3:2") == {1: Fraction(1, 5), 2: Fraction(2, 5), 3: Fraction(2, 5)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not LEVEL:PARTS"),
        ("0:", "is not LEVEL:PARTS"),
        ("0:.", "is not LEVEL:PARTS"),
        ("0:1.2.3", "is not LEVEL:PARTS"),
        ("0:-1", "is not LEVEL:PARTS"),
        ("0:1;2:1", "is not LEVEL:PARTS"),
        ("0:1,", "is not LEVEL:PARTS"),
        ("0:1,0:2", "level 0 is named twice"),
        ("0-2:1,2:2", "level 2 is named twice"),
        ("0:0,2:1", "parts must be above 0"),
        ("5:1", "must be 0 to 4"),
        ("2-1", "must be 0 to 4"),
    ],
)
def test_a_mix_that_is_none(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        read_mix(text)
    assert str(caught.value).startswith("--mix")


@given(mixes, st.integers(1, 200))
def test_at_every_size_no_share_is_a_whole_fact_off(mix: dict[int, Fraction], size: int) -> None:
    drawn = list(itertools.islice(turns(mix), size))
    for places in range(1, size + 1):
        for level, share in mix.items():
            assert abs(drawn[:places].count(level) - share * places) < 1
    assert counts(mix, size) == {level: drawn.count(level) for level in mix}


@given(mixes, st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_nested_in_size_and_each_part_is_what_its_level_gives(
    mix: dict[int, Fraction], one: int, other: int, seed: int
) -> None:
    mastery = table()
    small, large = (select_mix(mastery, mix=mix, size=size, seed=seed) for size in sorted((one, other)))
    assert large["id"][: small.height].to_list() == small["id"].to_list()
    assert large.columns == mastery.columns and large["id"].n_unique() == large.height == max(one, other)
    for level, count in counts(mix, large.height).items():
        part = large.filter(pl.col("level") == level)["id"].to_list()
        assert part == (select(mastery, level=level, size=count, seed=seed)["id"].to_list() if count else [])


def test_topics_are_balanced_within_each_level() -> None:
    chosen = select_mix(table(), mix=read_mix("0:1,3:1"), size=48)
    by_topic = chosen.group_by("level", "topic").len()
    assert set(by_topic["len"]) == {8} and by_topic.height == 6


def test_several_levels_taken_as_one() -> None:
    mastery = pl.concat([table(40).filter(pl.col("level") == 1), table(8).filter(pl.col("level") == 2)])
    chosen = select(mastery, level=(1, 2), size=36, seed=1)
    assert sorted(chosen["topic"].value_counts()["count"]) == [12, 12, 12]
    assert set(chosen["level"]) == {1, 2}
    assert chosen["id"][:10].to_list() == select(mastery, level=(1, 2), size=10, seed=1)["id"].to_list()


def test_in_order_of_mastery() -> None:
    chosen = select_mix(table(), mix=read_mix("0-4"), size=23, seed=2)
    rising, falling = (in_order(chosen, order) for order in (Curriculum.unknown_first, Curriculum.known_first))
    assert rising["level"].to_list() == sorted(chosen["level"])
    assert falling["level"].to_list() == sorted(chosen["level"], reverse=True)
    for ordered in (rising, falling):
        assert sorted(ordered["id"]) == sorted(chosen["id"])
        for level in range(5):
            own = [frame.filter(pl.col("level") == level)["id"].to_list() for frame in (ordered, chosen)]
            assert own[0] == own[1]


def test_too_few_of_a_level_says_what_each_holds() -> None:
    mastery = table().filter((pl.col("level") != 2) | (pl.col("id").is_in(["2:0", "2:1"])))
    with pytest.raises(InputError) as caught:
        select_mix(mastery, mix=read_mix("0:1,2:1"), size=20)
    assert str(caught.value) == (
        "level 2 holds 2 facts of split 'train' and domain 'id', fewer than its 10 of --size 20 "
        "(by level 0: 40, 1: 40, 2: 2, 3: 40, 4: 40)"
    )
    with pytest.raises(InputError, match=r"level 1-3 holds 82 facts .* fewer than --size 99"):
        select(mastery, level=(1, 2, 3), size=99)
    with pytest.raises(InputError, match="--size must be at least 1"):
        select_mix(mastery, mix=read_mix("0-4"), size=0)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "run", tmp_path / "train.jsonl"
    folder.mkdir()
    table().write_parquet(folder / "mastery.parquet")
    lines = lambda: [json.loads(line) for line in out.read_text().splitlines()]  # noqa: E731

    assert run("select", folder, "--mix", "0:0.25,4:0.75", "--size", 12, "--out", out) == 0
    assert capsys.readouterr().out == f"{out}: 12 facts of level 0: 3, level 4: 9 over 3 topics\n"
    mixed = lines()
    assert [line["level"] for line in mixed].count(0) == 3 and set(mixed[0]) == {
        *("prompt", "completion", "id", "topic", "level")
    }
    assert (
        run(
            "select", folder, "--mix", "0:1,4:3", "--size", 12, "--out", out, "--curriculum", "known-first", "--seed", 0
        )
        == 0
    )
    assert [line["level"] for line in lines()] == [4] * 9 + [0] * 3
    assert sorted(line["id"] for line in lines()) == sorted(line["id"] for line in mixed)
    assert run("select", folder, "--level", "1-3", "--size", 9, "--out", out) == 0
    assert {line["level"] for line in lines()} <= {1, 2, 3}
    out.unlink()
    to = ["--size", 4, "--out", out]
    assert "one of --level L and --mix" in refused(capsys, "select", folder, *to)
    assert "one of --level L and --mix" in refused(capsys, "select", folder, *to, "--level", 1, "--mix", "0-4")
    assert "--curriculum has no effect" in refused(
        capsys, "select", folder, *to, "--level", 1, "--curriculum", "known-first"
    )
    assert "--mix 0:x" in refused(capsys, "select", folder, *to, "--mix", "0:x")
    assert not out.exists()
