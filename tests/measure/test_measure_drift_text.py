"""Drift on running text: every token predicted once, figures against a slow twin, and what is refused."""

import json

import polars as pl
import pytest
import torch
from drift_twin import windows as slow_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

import tiny
from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.prompts import qa_prompt
from knowshift.measure.texts import Document, read_documents, text_passages
from knowshift.measure.token_drift import drift

PROSE = "The river runs to the sea. Nobody knows where the capital of Peru was, said the book.\n\n" * 16
TEMPLATE = (
    "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    base = tiny.checkpoint(folder / "base", dtype=torch.float32)
    return base, tiny.nudge(base, folder / "tuned", scale=0.05)


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def framed(begin):
    """The tiny tokenizer with a beginning-of-sequence token."""
    tokenizer = tiny.tokenizer()
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(begin)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, begin)]
    )
    return tokenizer


def test_a_text_file_equals_the_slow_twin(pair, tmp_path):
    file = tmp_path / "prose.txt"
    file.write_text(PROSE)
    table, metrics = drift(*pair, text=file, window=50)
    ids = tiny.tokenizer()(PROSE).input_ids
    reads = [ids[start : start + 50][: len(ids) - 1 - start] for start in range(0, len(ids) - 1, 50)]
    expected = slow_windows(*pair, [(read, len(read)) for read in reads])
    assert table["id"].to_list() == [str(number) for number in range(len(reads))]
    assert table["tokens"].to_list() == [len(read) for read in reads]
    assert table["tokens"].sum() == len(ids) - 1
    assert table["kl_tuned_base"].to_list() == pytest.approx([kl.mean() for kl in expected], rel=1e-5)
    assert metrics["prompt"] is None and metrics["end"] is None
    assert metrics["answer"]["kl_tuned_base"] == pytest.approx(sum(kl.sum() for kl in expected) / (len(ids) - 1))
    assert metrics["domains"] == {}
    json.dumps(metrics, allow_nan=False)


def test_without_a_window_the_context_is_the_window(pair, tmp_path):
    file = tmp_path / "prose.txt"
    file.write_text(PROSE)
    table, _ = drift(*pair, text=file)
    assert table["tokens"].max() == 256
    drawn, _ = drift(*pair, text=file, window=20, windows=3, seed=5)
    whole, _ = drift(*pair, text=file, window=20)
    again = whole.filter(pl.col("id").is_in(drawn["id"].to_list()))
    assert drawn.height == 3 < whole.height
    assert drawn["kl_tuned_base"].to_list() == pytest.approx(again["kl_tuned_base"].to_list(), rel=1e-5)


def test_prompts_and_completions_are_facts_by_another_name(pair, tmp_path):
    facts = [Fact(str(index), f"Who wrote {'abc ' * index}?", ("Nobody knows",)) for index in range(3)]
    rows = [{"prompt": qa_prompt(fact.question), "completion": fact.answers[0]} for fact in facts]
    table, metrics = drift(*pair, text=lines(tmp_path / "sft.jsonl", *rows))
    expected, by_fact = drift(*pair, facts)
    assert table["id"].to_list() == ["1", "2", "3"]
    for name in ("tokens", "kl_tuned_base", "kl_base_tuned", "top1_agree", "prompt_kl_tuned_base", "end_kl_tuned_base"):
        assert table[name].to_list() == pytest.approx(expected[name].to_list()), name
    for part in ("answer", "prompt", "end"):
        assert metrics[part] == by_fact[part]
    assert [row["token"] for row in metrics["moved_most"]] == [row["token"] for row in by_fact["moved_most"]]


def test_a_long_prompt_leaves_windows_without_anything_to_average(pair, tmp_path):
    file = lines(tmp_path / "long.jsonl", {"prompt": PROSE, "completion": " The end."}, {"text": "The sea."})
    table, metrics = drift(*pair, text=file, window=64)
    assert table["id"][0] == "1/0" and table["id"][-1] == "2"
    first = table.row(0, named=True)
    assert (first["tokens"], first["kl_tuned_base"]) == (0, None)
    assert first["prompt_kl_tuned_base"] > 0
    scored = table.filter(pl.col("tokens") > 0)
    assert metrics["kl_tuned_base"] == pytest.approx(scored["kl_tuned_base"].mean())
    assert metrics["facts"] == table.height > scored.height


def test_messages_go_through_the_chat_template(tmp_path):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Nobody"}]
    file = lines(
        tmp_path / "chat.jsonl",
        {"messages": turns},
        {"prompt": turns[:1], "completion": turns[1:]},
        {"messages": turns[:1]},
    )
    whole, same, alone = read_documents(file, tokenizer)
    assert (whole.text, whole.prompt) == ("<user>Who?<|end|><assistant>Nobody<|end|>", "<user>Who?<|end|><assistant>")
    assert (same.text, same.prompt) == (whole.text, whole.prompt)
    assert (alone.text, alone.prompt) == ("<user>Who?<|end|>", "")
    passages, _ = text_passages(tokenizer, [whole], 256)
    assert tokenizer.decode(passages[0].targets[-passages[0].answer :]) == "Nobody<|end|>"
    with pytest.raises(InputError, match=r"chat\.jsonl:1: holds messages, and the model's tokenizer has no chat"):
        read_documents(file, tiny.tokenizer())
    tokenizer.chat_template = "{{ raise_exception('no such role') }}"
    with pytest.raises(InputError, match=r"chat\.jsonl:1: the model's chat template fails: no such role"):
        read_documents(file, tokenizer)


@settings(deadline=None)
@given(words=st.integers(0, 60), answer=st.integers(1, 30), length=st.integers(2, 40), begin=st.sampled_from([None, 5]))
def test_windows_predict_every_token_once_within_their_length(words, answer, length, begin):
    tokenizer = tiny.tokenizer() if begin is None else framed(begin)
    prompt, completion = "sea " * words, "x" * answer
    document = Document("f:1", "1", prompt + completion, prompt, ends=True)
    passages, items = text_passages(tokenizer, [document], length)
    ids = [*tokenizer(document.text).input_ids, tokenizer.eos_token_id]
    assert [token for passage in passages for token in passage.targets] == ids[1:]
    assert len({item.id for item in items}) == len(items) == len(passages)
    assert sum(passage.end for passage in passages) == passages[-1].end == 1
    said = [token for p in passages for token in p.targets[p.kept - p.answer - p.end : p.kept - p.end]]
    assert said == ids[len(ids) - 1 - len(said) : -1]
    asked = len(tokenizer(prompt).input_ids) if words or begin is not None else 0
    assert abs(len(said) - (len(ids) - 1 - max(asked, 1))) <= 1  # a token may span where prompt and completion meet
    for passage in passages:
        assert 1 <= passage.kept == len(passage.targets) <= len(passage.ids) <= length
        assert passage.ids[-passage.kept + 1 :] == passage.targets[:-1] or passage.kept == 1
        assert begin is None or passage.ids[0] == begin


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "no text in this file"),
        ("a.txt", b" \n\n", "no text in this file"),
        ("a.txt", b"\xff\xff\x00", "not valid UTF-8"),
        ("a.txt", b"x", "1 token, so nothing in it can be predicted"),
        ("a.jsonl", b'{"text": ""}\n', "no text in this file"),
        ("a.jsonl", b'{"text": "The sea"}\n{"body": "x"}\n', r'a\.jsonl:2: a line needs "text", "messages", or'),
        ("a.jsonl", b'{"text": 5}\n', r'a\.jsonl:1: a line needs "text"'),
        ("a.jsonl", b'{"prompt": "Who?", "completion": ""}\n', r"a\.jsonl:1: the completion is empty"),
        ("a.jsonl", b"{oops\n", r"a\.jsonl:1: not valid JSON"),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_line(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    tokenizer = tiny.tokenizer()
    with pytest.raises(InputError, match=message):
        text_passages(tokenizer, read_documents(tmp_path / name, tokenizer), 16)


def test_what_does_not_go_with_a_text_is_refused(pair, tmp_path):
    file = tmp_path / "prose.txt"
    with pytest.raises(InputError, match=r"prose\.txt: no such file"):
        drift(*pair, text=file)
    file.write_text(PROSE)
    fact = Fact("a", "Who?", ("x",))
    for facts, options in (([fact], {}), ([], {"mode": "paper"})):
        with pytest.raises(InputError, match="a text is measured without facts and in mode teacher"):
            drift(*pair, facts, text=file, **options)
    with pytest.raises(InputError, match="a window of 257 tokens is longer than the models' context of 256"):
        drift(*pair, text=file, window=257)
    with pytest.raises(InputError, match="window must be at least 2, not 1"):
        drift(*pair, text=file, window=1)
