"""The user's task: what is read, what counts as right, and that no item looks at another."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from knowing import Knowing

from knowshift.errors import InputError
from knowshift.generate.engine import Prompt
from knowshift.repair.task import Item, _Judge, ask, read_task


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def item(prompt, *completions):
    return Item(prompt, Prompt(prompt, key=""), completions, f"task.jsonl:{prompt}")


def scores(says, metric, *items):
    return ask(Knowing(lambda prompt: says[prompt]), items, metric)


def test_a_prompt_on_several_lines_is_one_item(tmp_path):
    file = written(
        tmp_path / "task.jsonl",
        {"prompt": "a", "completion": "one"},
        {"prompt": "b", "completion": "two", "note": 3},
        {"prompt": "a", "completion": "eins"},
        {"prompt": "a", "completion": "one"},
        {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "three"}]},
    )
    items = read_task(file)
    assert [(each.asked, each.completions, each.place) for each in items] == [
        ("a", ("one", "eins"), f"{file}:1"),
        ("b", ("two",), f"{file}:2"),
        ("c", ("three",), f"{file}:5"),
    ]
    assert items[2].prompt == Prompt("", key="", user="c")
    assert len({each.id for each in items}) == 3
    again = read_task(
        written(tmp_path / "more.jsonl", {"prompt": "z", "completion": "0"}, {"prompt": "a", "completion": "x"})
    )
    assert again[1].id == items[0].id


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a"}, '"completion" is missing'),
        ({"prompt": "a", "completion": " "}, '"completion" is empty'),
        ({"prompt": "a", "completion": 3}, "must be text"),
        (
            {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]},
            "one question of the user",
        ),
        ({"messages": [{"role": "system", "content": "x"}, {"role": "assistant", "content": "x"}]}, "one question"),
    ],
)
def test_malformed_lines_are_named(tmp_path, row, message):
    file = written(tmp_path / "task.jsonl", {"prompt": "a", "completion": "b"}, row)
    with pytest.raises(InputError, match=message) as refused:
        read_task(file)
    assert f"{file}:2" in str(refused.value)


def test_exact_and_contains():
    items = [item(name, "Lima, Peru") for name in "abcdef"] + [item("g", "one", "eins")]
    said = [" Lima, Peru\n", "lima, peru", "Lima,", "It is Lima,\n Peru.", "Lima, Peru.", "", "eins"]
    says = dict(zip("abcdefg", said, strict=True))
    assert scores(says, "exact", *items)["right"].to_list() == [True, False, False, False, False, False, True]
    assert scores(says, "contains", *items)["right"].to_list() == [True, False, False, True, True, False, True]
    table = scores(says, "exact", *items)
    assert table["score"].to_list() == [1, 0, 0, 0, 0, 0, 1]
    assert table["id"].to_list() == list("abcdefg")


def test_log_likelihood_decodes_nothing_to_speak_of():
    engine = Knowing(lambda prompt: "a long story that nobody needs")
    table = ask(engine, [item("a", "a long"), item("b", "other")], "log-likelihood")
    assert table["score"].to_list() == [-1, -3] == table["log_prob"].to_list()
    assert table["right"].to_list() == [None, None] == table["text"].to_list()
    assert engine.tokens == 2


def test_a_text_is_read_no_further_than_it_can_matter():
    engine = Knowing(lambda prompt: "x" + " and on and on" * 50)
    ask(engine, [item("a", "a right answer of some length")], "exact")
    assert engine.tokens == 1


def test_an_item_scores_the_same_whatever_is_asked_beside_it():
    short, long = item("a", "Lima"), item("b", "word " * 60)
    says = {"a": "well " * 16 + "Lima", "b": "word " * 60}
    alone = scores(says, "contains", short)
    beside = scores(says, "contains", short, long)
    assert not alone["right"][0]  # too far on
    assert beside.head(1).equals(alone) and beside["right"][1]


def test_an_end_token_in_the_file_is_no_text():
    assert scores({"a": "Lima"}, "exact", item("a", "Lima<|end|>"))["right"].to_list() == [True]


def test_refusals():
    with pytest.raises(InputError, match="--task-metric bleu: not one of exact, contains, log-likelihood"):
        ask(Knowing(str), [item("a", "b")], "bleu")
    for completions in (["<|end|>"], ["b", " <|end|>"]):
        with pytest.raises(InputError, match=r"task\.jsonl:a: the completion is no token"):
            ask(Knowing(str), [item("a", *completions)], "contains")


@given(st.lists(st.text("ab \n", min_size=1, max_size=6), min_size=1, max_size=3), st.text("ab \n", max_size=12))
def test_stopping_early_never_changes_a_verdict(rights, text):
    rights = [right for right in rights if right.strip()] or ["a"]
    for metric in ("exact", "contains"):
        judge = _Judge(metric, rights)
        verdict = judge.right(text)
        for end in range(len(text)):
            if judge.settled(text[:end]):
                assert judge.right(text[:end]) == verdict
