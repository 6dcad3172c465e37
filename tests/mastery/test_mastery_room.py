"""What does not fit the model, or its chat template, is said before anything is drawn, with the fact's name."""

import json
import shutil
from pathlib import Path

import pytest

import tiny
from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.facts.templates import templates_for
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.mastery.room import check_room
from knowshift.mastery.score import MasteryOptions, score

SHORT = Fact("short", "What is the capital of Peru?", ("Lima",))


@pytest.fixture
def engine() -> TransformersEngine:
    return TransformersEngine(tiny.model().float(), tiny.tokenizer(), rows=16)


def longest(engine: TransformersEngine, fact: Fact) -> int:
    return max(len(ids) for ids in engine.tokenizer(list(templates_for(fact))).input_ids)


@pytest.mark.parametrize("letter", ["z", "語"])
def test_the_last_that_fits_runs_and_the_next_is_named(engine: TransformersEngine, tmp_path: Path, letter: str) -> None:
    for length in range(300):
        fact = Fact("long", f"What is {letter * length}?", ("Lima",))
        if longest(engine, fact) > 250:
            break
        fits = fact
    room = 256 - longest(engine, fits)
    options = MasteryOptions(samples=1, max_new_tokens=room, slick=False)
    assert score(engine, [SHORT, fits], tmp_path / "a", options, model="m").height == 2
    tokens, most = longest(engine, fact), 256 - longest(engine, fact)
    said = rf"^fact 'long': a prompt of {tokens} tokens and {room} new .* context of 256: "
    with pytest.raises(InputError, match=rf"{said}lower --max-new-tokens to {most} or leave the fact out$"):
        score(engine, [SHORT, fact], tmp_path / "b", options, model="m")
    assert not (tmp_path / "b").exists()
    score(engine, [fact], tmp_path / "c", options.model_copy(update={"max_new_tokens": most}), model="m")


def test_what_can_never_fit_is_to_be_left_out(engine: TransformersEngine) -> None:
    fact = Fact("huge", "What is " + "zq" * 400 + "?", ("Lima",))
    with pytest.raises(InputError, match=r"^fact 'huge': .* context of 256: leave the fact out$"):
        check_room(engine, [SHORT, fact], MasteryOptions())
    engine.context = 0  # no limit is known
    check_room(engine, [SHORT, fact], MasteryOptions())


def test_a_chat_template_counts_and_is_tried_first(engine: TransformersEngine) -> None:
    options = MasteryOptions(chat=True)
    with pytest.raises(InputError, match="no chat template"):
        check_room(engine, [SHORT], options)
    turn = "{% for message in messages %}{{ message.content }}{% endfor %}"
    engine.tokenizer.chat_template = turn
    check_room(engine, [SHORT], options)
    engine.tokenizer.chat_template = "qz" * 200 + turn
    with pytest.raises(InputError, match="fact 'short': a prompt of"):
        check_room(engine, [SHORT], options)
    engine.tokenizer.chat_template = "{{ raise_exception('only pirates\\nmay ask') }}"
    with pytest.raises(InputError, match=r"^the model's chat template fails: only pirates$"):
        check_room(engine, [SHORT], options)


def test_the_command_says_it_in_one_line_and_writes_nothing(
    base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = [SHORT, Fact("long", "What is " + "zq" * 130 + "?", ("Lima",))]
    write_jsonl(tmp_path / "facts.jsonl", (fact.to_json() for fact in facts))
    model = Path(shutil.copytree(base_folder, tmp_path / "model"))
    (model / "chat_template.jinja").write_text("{{ messages[0].content + 1 }}")
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 256}))
    command = ["mastery", str(model), "--facts", str(tmp_path / "facts.jsonl"), "--out", str(tmp_path / "out")]
    for extra, said in (([], "fact 'long'"), (["--chat"], "chat template fails")):
        assert main([*command, *extra]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert not (tmp_path / "out").exists()


def test_other_ends_or_another_chat_template_make_it_another_model(base_folder: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "facts.jsonl", [SHORT.to_json()])
    model, out = Path(shutil.copytree(base_folder, tmp_path / "model")), tmp_path / "out"
    command = ["mastery", str(model), "--facts", str(tmp_path / "facts.jsonl"), "--out", str(out)]
    command += ["--templates", "2", "--samples", "3", "--max-new-tokens", "4"]

    def paid() -> int:
        assert main(command) == 0
        return int(json.loads((out / "metrics.json").read_text())["draws"]["made"])

    assert [paid(), paid()] == [6, 0]
    config = model / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": [0, 7]}))
    assert [paid(), paid()] == [6, 0]
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert [paid(), paid()] == [6, 0]
    (model / "README.md").write_text("no part of it")
    assert paid() == 0
