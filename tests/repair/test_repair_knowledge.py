"""What the base knows: planted, screened, cached; solved examples come from search and are never asked."""

import re

import polars as pl
import pytest
from knowing import Knowing

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.repair.knowledge import known_facts
from knowshift.repair.split import PARTS, part_of
from knowshift.steps.inputs import SHOTS

TOPICS = ("river", "mountain", "lake")
FACTS = [
    Fact(f"f{number}", f"Where is {TOPICS[number % 3]} {number}?", (f"Land{number}",), topic=TOPICS[number % 3])
    for number in range(240)
]
BY_QUESTION = {fact.question: fact for fact in FACTS}


def number(question):
    return int(re.search(r"\d+", question)[0])


def base(question):
    """Knows three of four facts."""
    return f" Land{number(question)}\n\nQuestion: more" if number(question) % 4 else " Nowhere"


def test_the_planted_facts_are_found(tmp_path):
    engine = Knowing(base)
    found = known_facts(engine, FACTS, "F", model="m", cache=tmp_path)
    asked = found.table.filter(pl.col("role") == "asked")
    assert asked.height == len(FACTS) - 2 * SHOTS
    assert {row["id"] for row in asked.iter_rows(named=True) if row["known"]} == {
        name for name in asked["id"] if int(name[1:]) % 4
    }
    for part in PARTS:
        assert found.known[part] and all(part_of(fact.question) == part for fact in found.known[part])
    assert sum(map(len, found.known.values())) == asked["known"].sum()
    assert found.table["part"].to_list() == [part_of(fact.question) for fact in FACTS]


def test_solved_examples_are_known_facts_of_search_and_never_asked(tmp_path):
    engine = Knowing(base)
    found = known_facts(engine, FACTS, "F", model="m", cache=tmp_path)
    screen = [fact for fact in FACTS if fact.id in set(found.table.filter(pl.col("role") == "screen")["id"])]
    assert len(found.shots) == len(screen) == SHOTS and not set(found.shots) & set(screen)
    for shot in (*found.shots, *screen):
        assert part_of(shot.question) == "search" and int(shot.id[1:]) % 4
        assert all(shot not in facts for facts in found.known.values())
    assert len({shot.topic for shot in (*found.shots, *screen)}) == len(TOPICS)
    last = engine.prompts[-(len(FACTS) - 2 * SHOTS) :]  # the screening itself
    heads = {prompt.text.rpartition("Question: ")[0] for prompt in last}
    assert len(heads) == 1
    assert all(f"{shot.question}\nAnswer: {shot.answers[0]}" in next(iter(heads)) for shot in screen)
    assert not any(shot.question in next(iter(heads)) for shot in found.shots)


def test_the_answers_are_asked_for_once(tmp_path):
    first = known_facts(Knowing(base), FACTS, "F", model="m", cache=tmp_path)
    silent = Knowing(base)
    again = known_facts(silent, FACTS, "F", model="m", cache=tmp_path)
    assert not silent.asked
    assert again.shots == first.shots and again.known == first.known and again.table.equals(first.table)
    for change in ({"model": "n"}, {"seed": 1}, {"max_new_tokens": 15}):
        loud = Knowing(base)
        known_facts(loud, FACTS, "F", **{"model": "m", "cache": tmp_path} | change)
        assert loud.asked
    assert len(list(tmp_path.glob("*.parquet"))) == 4


def test_the_same_question_under_another_id_is_told_and_not_asked(tmp_path):
    once = known_facts(Knowing(base), FACTS, "F", model="m", cache=tmp_path)
    shot = once.shots[0]
    twice = [*FACTS, Fact("twin", shot.question.upper(), shot.answers, topic=shot.topic)]
    found = known_facts(Knowing(base), twice, "F", model="m", cache=tmp_path)
    told = {fact.question.casefold() for fact in found.shots}
    asked = set(found.table.filter(pl.col("role") == "asked")["id"])
    assert not any(fact.question.casefold() in told for fact in twice if fact.id in asked)
    assert len(found.shots) == SHOTS


def test_a_base_that_knows_nothing_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match=r"^F: of 240 facts the base model knows hardly any .* nothing to keep$"):
        known_facts(Knowing(lambda question: " no idea"), FACTS, "F", model="m", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_base_that_knows_too_little_is_refused(tmp_path):
    few = {fact.id for fact in FACTS if part_of(fact.question) == "search"} | {"f1", "f2"}
    engine = Knowing(lambda question: base(question) if BY_QUESTION[question].id in few else " Nowhere")
    with pytest.raises(InputError, match=r"F: \d+ facts that the base model knows are too few: .* for test"):
        known_facts(engine, FACTS, "F", model="m", cache=tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    known_facts(Knowing(base), FACTS, "F", model="m", cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=re.escape(str(file))):
        known_facts(Knowing(base), FACTS, "F", model="m", cache=tmp_path)
