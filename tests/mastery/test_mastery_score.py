"""Scoring on a real tiny model: verdicts recomputed from the kept samples, draws that depend on their name alone."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import tiny
from knowshift import steps
from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.facts.matching import Matcher
from knowshift.facts.templates import QUESTION_FORMS, topics
from knowshift.files import read_json
from knowshift.generate.encode import chat_text
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.mastery.ask import ask
from knowshift.mastery.levels import level
from knowshift.mastery.score import SAMPLES_SCHEMA, SCHEMA, MasteryOptions, score
from knowshift.mastery.slick import CLASSES, slick

OPTIONS = MasteryOptions(templates=7, samples=3, temperature=1.0, max_new_tokens=6, seed=1)


def letter_facts(count: int = 60) -> list[Fact]:
    """Facts whose answers a random model hits now and then: single letters and pairs of them."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [(a, b) for a in letters for b in "abcde"][:count]
    return [
        Fact(id=a + b, question=f"Say {a} and {b}?", answers=(a if b == "a" else a + b,), topic="letters")
        for a, b in pairs
    ]


@pytest.fixture(scope="module")
def facts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    write_jsonl(path, (fact.to_json() for fact in letter_facts()))
    return path


@pytest.fixture(scope="module")
def scored(base_folder: Path, facts_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mastery")
    steps.mastery(str(base_folder), str(facts_file), out, OPTIONS, keep_samples=True)
    return out


@pytest.fixture
def engine() -> TransformersEngine:
    """In float32, where a row's rounding hardly shows in what is drawn."""
    return TransformersEngine(tiny.model("llama", seed=3).float(), tiny.tokenizer(), rows=64)


def test_verdicts_are_what_the_samples_say(scored: Path) -> None:
    table, samples = pl.read_parquet(scored / "mastery.parquet"), pl.read_parquet(scored / "samples.parquet")
    assert dict(table.schema) == SCHEMA
    assert dict(samples.schema) == SAMPLES_SCHEMA
    assert samples.height == table.height * 21
    assert samples["sample"].to_list() == [0, 1, 2] * 7 * table.height
    assert table["level"].n_unique() > 1
    assert table["strict_hits"].sum() < table["hits"].sum()
    texts = samples.partition_by("id", as_dict=True)
    for row in table.iter_rows(named=True):
        drawn, matcher = texts[(row["id"],)], Matcher(row["answers"])
        hits = [matcher.contains(text) for text in drawn["text"]]
        strict = [matcher.strict(text) for text in drawn["text"]]
        assert (drawn["hit"].to_list(), drawn["strict"].to_list()) == (hits, strict)
        assert (row["hits"], row["strict_hits"], row["trials"]) == (sum(hits), sum(strict), 21)
        assert row["mastery"] == sum(hits) / 21
        assert row["level"] == level(sum(hits), 21)
        by_template = drawn.group_by("template", maintain_order=True).agg(pl.col("hit").sum())
        assert row["template_hits"] == by_template["hit"].to_list()
        assert row["slick"] == slick(row["greedy_hits"], 7, row["hits"])


def test_greedy_verdicts_are_those_of_greedy_decoding(engine: TransformersEngine, tmp_path: Path) -> None:
    # Short answers, so that a random model's most likely continuation holds one sometimes.
    facts = [Fact(id=str(n), question=f"Number {n}?", answers=(letter,)) for n, letter in enumerate("abcdehinoprstuw")]
    table = score(engine, facts, tmp_path, OPTIONS, model="tiny")
    expected = []
    for fact in facts:
        texts = engine.greedy([prompt.text for prompt in ask(fact, OPTIONS).prompts], max_new_tokens=6)
        expected.append(sum(Matcher(fact.answers).contains(draw.text) for draw in texts))
    assert table["greedy_hits"].to_list() == expected
    assert 0 < sum(expected) < 7 * len(facts)
    assert set(table["slick"]) <= set(CLASSES)
    without = score(engine, facts, tmp_path / "without", OPTIONS.model_copy(update={"slick": False}), model="tiny")
    assert without["slick"].null_count() == without["greedy_hits"].null_count() == len(facts)
    assert_frame_equal(without.drop("slick", "greedy_hits"), table.drop("slick", "greedy_hits"))


def test_slick_classes() -> None:
    assert [slick(*asked) for asked in ((7, 7, 0), (3, 7, 9), (0, 7, 1), (0, 7, 0))] == list(CLASSES)
    with pytest.raises(ValueError, match="8 of 7"):
        slick(8, 7, 0)


def test_same_seed_same_bytes_other_seed_other_draws(
    base_folder: Path, facts_file: Path, scored: Path, tmp_path: Path
) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    steps.mastery(str(base_folder), str(facts_file), again, OPTIONS, keep_samples=True)
    for name in ("mastery.parquet", "samples.parquet"):
        assert (again / name).read_bytes() == (scored / name).read_bytes()
    table = steps.mastery(str(base_folder), str(facts_file), other, OPTIONS.model_copy(update={"seed": 2}))
    assert table["hits"].to_list() != pl.read_parquet(again / "mastery.parquet")["hits"].to_list()


def test_draws_do_not_depend_on_company_or_order(engine: TransformersEngine, tmp_path: Path) -> None:
    facts = letter_facts()
    options = OPTIONS.model_copy(update={"slick": False})
    columns = ["id", "template", "sample", "text"]

    def texts(name: str, asked: list[Fact]) -> pl.DataFrame:
        score(engine, asked, tmp_path / name, options, model="tiny", keep_samples=True)
        return pl.read_parquet(tmp_path / name / "samples.parquet").select(columns).sort(columns[:3])

    together = texts("together", facts)
    backwards = texts("backwards", facts[::-1])
    alone = pl.concat([texts(f"alone {fact.id}", [fact]) for fact in facts[:12]])
    for other in (backwards, alone):
        both = other.join(together, on=columns[:3], suffix="_together")
        assert both.height == other.height
        assert (both["text"] == both["text_together"]).mean() >= 0.999


def test_a_limit_scores_a_random_part(base_folder: Path, facts_file: Path, tmp_path: Path) -> None:
    few = steps.mastery(str(base_folder), str(facts_file), tmp_path / "few", OPTIONS, limit=9)
    more = steps.mastery(str(base_folder), str(facts_file), tmp_path / "more", OPTIONS, limit=20)
    assert few.height == 9
    assert set(few["id"]) <= set(more["id"])
    assert few["id"].to_list() != more["id"].to_list()[:9]


def test_the_run_can_be_repeated_from_its_record(scored: Path) -> None:
    record = read_json(scored / "run.json")
    assert record["options"].items() >= OPTIONS.model_dump().items()
    assert record["options"]["store"] == str(scored / "store")
    assert record["models"]["model"].startswith("sha256")
    assert {"versions", "started", "ended"} <= set(record)
    metrics, table = read_json(scored / "metrics.json"), pl.read_parquet(scored / "mastery.parquet")
    assert metrics["facts"] == table.height
    for number in range(5):
        assert metrics["levels"]["id"][str(number)] == table.filter(level=number).height
    assert sum(metrics["slick"]["id"].values()) == table.height
    assert metrics["draws"]["made"] == table["trials"].sum()
    assert metrics["draws"]["samples_per_second"] > 0


def test_capitals_count_when_asked(engine: TransformersEngine, tmp_path: Path) -> None:
    """Of words the random model says now and then, half are asked for in other capitals."""
    answers = ("The", "tHe", "capital", "caPital", "abc", "aBc", "Paris", "paris")
    facts = [Fact(id=answer, question=f"Number {n // 2}?", answers=(answer,)) for n, answer in enumerate(answers)]
    options = OPTIONS.model_copy(update={"templates": 21, "samples": 20})
    exact = options.model_copy(update={"case_sensitive": True})
    loose, tight = (
        score(engine, facts, tmp_path / name, asked, model="tiny", store=tmp_path / "store")["hits"].to_list()
        for name, asked in (("loose", options), ("tight", exact))
    )
    assert sum(loose[::2]) > 0
    assert sum(loose[1::2]) > 0
    assert sum(tight[::2]) > 0
    assert sum(tight[1::2]) == 0


def test_chat_asks_through_the_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    country = Fact("1", "What is the capital of Peru?", ("Lima",), topic="capital_of_country", subject="Peru")
    plain = Fact("2", "Who wrote it?", ("Nobody",))
    chat = MasteryOptions(chat=True, templates=2, samples=2, max_new_tokens=2)
    clozes, questions = (ask(fact, chat).prompts for fact in (country, plain))
    assert [prompt.user for prompt in clozes] == [country.question] * 2
    cloze = topics()["capital_of_country"].cloze
    assert [prompt.text for prompt in clozes] == [form.replace("{subject}", "Peru") for form in cloze[:2]]
    assert [prompt.user for prompt in questions] == [
        form.replace("{question}", plain.question) for form in QUESTION_FORMS[:2]
    ]
    assert [prompt.text for prompt in questions] == ["", ""]

    tokenizer = tiny.tokenizer()
    folder, facts = tiny.checkpoint(tmp_path / "model"), tmp_path / "facts.jsonl"
    write_jsonl(facts, (fact.to_json() for fact in (country, plain)))
    command = ["mastery", str(folder), "--facts", str(facts), "--templates", "2", "--samples", "2"]
    command += ["--max-new-tokens", "4", "--keep-samples", "--temperature", "1"]
    assert main([*command, "--chat", "--out", str(tmp_path / "refused")]) == 2
    assert "the model's tokenizer has no chat template" in capsys.readouterr().err
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>"
        "{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    assert chat_text(tokenizer, clozes[0]) == f"<user>{country.question}<assistant>{clozes[0].text}"
    texts = {}
    for name, flags in (("chat", ["--chat"]), ("plain", [])):
        assert main([*command, *flags, "--out", str(tmp_path / name), "--store", str(tmp_path / "store")]) == 0
        texts[name] = pl.read_parquet(tmp_path / name / "samples.parquet")["text"].to_list()
        assert read_json(tmp_path / name / "run.json")["options"]["chat"] == (name == "chat")
    assert texts["chat"] != texts["plain"]


def test_dirty_facts_go_through(base_folder: Path, tmp_path: Path) -> None:
    dirty = [
        Fact("empty subject", "Where is it?", ("Paris",), topic="capital_of_country"),
        Fact("(regex|[a-z]+\\", "What is .*(?P<x>$^)?", ("a.*b[", "(e", "d\\")),
        Fact("long", "Which text?", (("lorem ipsum " * 900).strip(),)),
        Fact("right to left", "مَا هِيَ عَاصِمَةُ مِصْرَ؟\u200f", ("القاهرة", "C\u202eoria\u202cx")),
        Fact("combining", "Wer schrieb es, Zoe\u0308?", ("Zoe\u0308", "E\u0301mile")),
        Fact("braces {subject} {question}", "What is {subject} {0}?", ("{answer}", "{0}")),
        Fact("quotes '\"\n\tand more", "Line one\nline two?", ("'e", 'e"')),
        Fact("🜁", "🜁?", ("🜁a", "a")),
    ]
    facts, out = tmp_path / "facts.jsonl", tmp_path / "out"
    write_jsonl(facts, (fact.to_json() for fact in dirty))
    flags = ["--templates", "21", "--samples", "2", "--max-new-tokens", "3", "--keep-samples"]
    assert main(["mastery", str(base_folder), "--facts", str(facts), "--out", str(out), *flags]) == 0
    table = pl.read_parquet(out / "mastery.parquet")
    assert table["id"].to_list() == [fact.id for fact in dirty]
    assert table["trials"].to_list() == [42] * len(dirty)
    assert table["answers"][2].to_list() == ["lorem ipsum " * 899 + "lorem ipsum"]
    for fact, row in zip(dirty, table.iter_rows(named=True), strict=True):
        assert len(row["answers"]) == len(fact.answers)
        drawn = pl.read_parquet(out / "samples.parquet").filter(id=fact.id)
        assert row["hits"] == sum(Matcher(row["answers"]).contains(text) for text in drawn["text"])


def test_wrong_options_are_one_line(
    base_folder: Path, facts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (
        {"templates": 0},
        {"templates": 22},
        {"samples": 0},
        {"temperature": 0},
        {"temperature": float("nan")},
        {"rows": 0},
    ):
        with pytest.raises(InputError, match=r"^--(templates|samples|temperature|rows)"):
            MasteryOptions(**wrong)
    command = ["mastery", str(base_folder), "--facts", str(facts_file), "--out", str(tmp_path / "out")]
    in_a_file = ["--store", str(facts_file / "store")]
    for said, flags in {
        "rows": ["--rows", "0"],
        "facts.jsonl is a file": in_a_file,
        "temp": ["--temperature", "0"],
    }.items():
        assert main([*command, *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert not (tmp_path / "out").exists()


def test_no_such_engine(base_folder: Path, facts_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--engine"):
        steps.mastery(str(base_folder), str(facts_file), tmp_path / "x", OPTIONS, engine="oracle")


def test_facts_that_cannot_be_told_apart(engine: TransformersEngine, tmp_path: Path) -> None:
    twice = [Fact("same", "One?", ("a",)), Fact("same", "Two?", ("b",))]
    with pytest.raises(InputError, match="two facts have the id 'same'"):
        score(engine, twice, tmp_path, OPTIONS, model="tiny")
    with pytest.raises(InputError, match="no facts"):
        score(engine, [], tmp_path, OPTIONS, model="tiny")
