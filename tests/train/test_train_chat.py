"""Conversations: what TRL would make of them, to the token; the last assistant turn is what is learned."""

import json
from pathlib import Path

import polars as pl
import pytest

import tiny
from commands import refused, run
from knowshift.errors import InputError
from knowshift.train.chat import conversation, render
from knowshift.train.data import IGNORED, Pair, read_pairs, tokenize, written

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Opens the answer with a thought where one is to be written, and not where it stands.
THINKING = TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think></think>{% endif %}")

USER, OTHER = {"role": "user", "content": "What is the capital of Peru?"}, {"role": "user", "content": "Of Japan?"}
LIMA, TOKYO = {"role": "assistant", "content": "Lima"}, {"role": "assistant", "content": " Tokyo "}
ROWS = [
    {"messages": [USER, LIMA, OTHER, TOKYO]},
    {"prompt": [{"role": "system", "content": "Be brief."}, USER], "completion": [LIMA]},
    {"prompt": [USER, LIMA, OTHER], "completion": [TOKYO]},
]


def tokenizer(template: str | None = TEMPLATE, *, beginning: bool = False):
    found = tiny.tokenizer()
    if beginning:
        from tokenizers.processors import TemplateProcessing

        start = found.convert_ids_to_tokens(5)
        found.bos_token = start
        found.backend_tokenizer.post_processor = TemplateProcessing(single=f"{start} $A", special_tokens=[(start, 5)])
    found.chat_template = template
    return found


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ours(path: Path, tokenizer, **options):
    return tokenize(path, written(path, read_pairs(path, **options), tokenizer), tokenizer, 256)


def trl_s(base: Path, rows: list[dict], tokenizer, **settings):
    """What TRL's own preparation makes of the rows."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base),
        args=SFTConfig(str(base.parent / "trl"), use_cpu=True, bf16=False, report_to="none", **settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    return list(trainer.train_dataset)


@pytest.mark.parametrize("beginning", [False, True])
@pytest.mark.parametrize("kind", ["chat", "plain", "by the template"])
def test_tokens_are_those_of_trl(base_folder: Path, tmp_path: Path, kind: str, beginning: bool) -> None:
    rows = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS[1:]]
    if kind == "plain":
        rows = [{"prompt": "Q: who?\nA:", "completion": " me"}, {"prompt": "A merg", "completion": "ed token<|end|>"}]
    taken = rows
    if kind == "by the template":
        taken = [{"prompt": "Who wrote it?", "completion": "Nobody"}]
        rows = [
            {"prompt": [{"role": "user", "content": row["prompt"]}],
             "completion": [{"role": "assistant", "content": row["completion"]}]}
            for row in taken
        ]  # fmt: skip
    words = tokenizer(beginning=beginning)
    found, _ = ours(write(tmp_path / "d.jsonl", taken), words, chat=kind == "by the template")
    theirs = trl_s(base_folder, rows, tokenizer(beginning=beginning))
    assert [(example.ids, example.labels) for example in found] == [(row["input_ids"], row["labels"]) for row in theirs]


def test_the_last_assistant_turn_is_learned_and_its_end(tmp_path: Path) -> None:
    words = tokenizer()
    found, merged = ours(write(tmp_path / "d.jsonl", ROWS), words)
    learned = [words.decode([label for label in example.labels if label != IGNORED]) for example in found]
    assert learned == ["Tokyo<|end|>\n", "Lima<|end|>\n", "Tokyo<|end|>\n"] and merged == 0
    assert words.decode(found[0].ids) == (
        "<|user|>What is the capital of Peru?<|end|>\n<|assistant|>Lima<|end|>\n<|user|>Of Japan?<|end|>\n"
        "<|assistant|>Tokyo<|end|>\n"
    )


def test_every_turn_of_the_assistant_where_the_template_tells(base_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", ROWS[:1])
    words = tokenizer(MARKED)
    found, _ = tokenize(path, written(path, read_pairs(path), words), words, 256, assistant=True)
    learned = words.decode([label for label in found[0].labels if label != IGNORED])
    assert learned == "Lima<|end|> Tokyo <|end|>"
    (theirs,) = trl_s(base_folder, ROWS[:1], tokenizer(MARKED), assistant_only_loss=True)
    assert found[0].labels == theirs["labels"]
    plain = tokenizer()
    with pytest.raises(InputError, match="does not mark what the assistant says"):
        tokenize(path, written(path, read_pairs(path), plain), plain, 256, assistant=True)
    with pytest.raises(InputError, match="needs conversations"):
        tokenize(path, [Pair("Q", "A", 1)], words, 256, assistant=True)


def test_a_template_that_opens_answers_in_two_ways() -> None:
    text = render(tokenizer(THINKING), [USER, LIMA], "d:1")
    assert text == ("<|user|>What is the capital of Peru?<|end|>\n<|assistant|>", "Lima", "<|end|>\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, '"messages" must be a list of turns'),
        ({"messages": "Hello"}, '"messages" must be a list of turns'),
        ({"messages": [{"content": "Hello"}]}, 'turn 1 of "messages" has no "role"'),
        ({"messages": [USER, {"role": "assistant", "content": 3}]}, 'turn 2 of "messages": "content" must be text'),
        ({"messages": [USER, LIMA, OTHER]}, "the last turn is the user's"),
        ({"messages": [LIMA]}, "no turn before the assistant's"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "last turn is empty"),
        ({"prompt": [USER], "completion": []}, '"completion" must be a list of turns'),
        ({"prompt": [USER], "completion": "Lima"}, '"prompt" must be text, found list'),
    ],
)
def test_malformed_turns_are_named(tmp_path: Path, row: dict, message: str) -> None:
    path = write(tmp_path / "d.jsonl", [ROWS[0], row])
    with pytest.raises(InputError) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(f"{path}:2: ") and message in str(caught.value)


def test_text_is_no_conversation() -> None:
    assert conversation({"prompt": "Q", "completion": "A"}, "d:1") is None


def test_what_a_template_refuses(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", ROWS)
    for template, message in (
        ("{{ raise_exception('only one turn each') }}", "d.jsonl:1: the chat template cannot take this: only one turn"),
        (None, "d.jsonl:1: .* no chat template: give --chat-template FILE"),
    ):
        with pytest.raises(InputError, match=message):
            ours(path, tokenizer(template))


def test_a_model_is_trained_on_conversations(base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = write(tmp_path / "d.jsonl", [*ROWS, {"prompt": "Who?", "completion": "Me"}] * 4)
    template = tmp_path / "mine.jinja"
    template.write_text(TEMPLATE)
    command = ["train", base_folder, "--data", data, "--learning-rate", "1e-2", "--epochs", "15", "--fp32", "--out"]
    assert run(*command, tmp_path / "a", "--chat", "--chat-template", template) == 0
    log = pl.read_parquet(tmp_path / "a" / "train_log.parquet")
    assert log["loss"][-1] < 0.5 * log["loss"][0]
    assert (tmp_path / "a" / "chat_template.jinja").read_text() == TEMPLATE
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["options"]["chat"] and record["chat_template"]["sha256"] in (tmp_path / "a" / "README.md").read_text()
    assert "no chat template" in refused(capsys, *command, tmp_path / "b")
    template.write_text("{% if %}")
    line = refused(capsys, *command, tmp_path / "b", "--chat-template", template)
    assert "mine.jinja:1: not a chat template" in line
    assert "cannot be read" in refused(capsys, *command, tmp_path / "b", "--chat-template", tmp_path / "none")
