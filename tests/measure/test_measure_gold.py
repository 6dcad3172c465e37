"""Greedy answers and the log-probability of the right one: as plain transformers gives them, one prompt at a time."""

import random

import pytest
import torch

import tiny
from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.prompts import qa_prompt
from knowshift.generate import reader
from knowshift.generate.encode import continuations, encode
from knowshift.generate.engine import Prompt
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.measure.accuracy import evaluate

WORDS = ["the", "capital", "of", "France", "is", "Paris", "and", "river", "who", "wrote", "a", "book", "12", "xyz"]
CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NEW = 8


def questions(count: int) -> list[Fact]:
    """Questions of 1 to 12 words, answers of 1 to 4."""
    draw = random.Random(0)
    said = [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) + f" {index}?" for index in range(count)]
    return [
        Fact(str(index), text, (" ".join(draw.choices(WORDS, k=draw.randint(1, 4))),))
        for index, text in enumerate(said)
    ]


def engine_of(architecture: str) -> TransformersEngine:
    """Random weights scaled up, so that a wrong position or mask shows; the tiny sliding windows are passed."""
    model = tiny.model(architecture)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in (
            model.model.layers.parameters() if hasattr(model, "model") else model.transformer.h.parameters()
        ):
            if parameter.ndim == 2:
                parameter.mul_(6)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = CHAT
    return TransformersEngine(model, tokenizer, rows=48)


@torch.inference_mode()
def slow(engine: TransformersEngine, text: str, answer: str) -> tuple[str, int, float]:
    """One prompt alone: what ``generate`` adds to it, and the sum of the answer's log-probabilities in float64."""
    prompt = engine.tokenizer(text, add_special_tokens=False).input_ids
    gold = engine.tokenizer(text + answer, add_special_tokens=False).input_ids[len(prompt) :]
    ids = torch.tensor([prompt])
    added = engine.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False)[0]
    logits = engine.model(torch.tensor([prompt + gold])).logits[0].double().log_softmax(-1)
    total = sum(logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(gold))
    return engine.tokenizer.decode(added[len(prompt) :], skip_special_tokens=True), len(gold), total


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gemma3"])
def test_200_prompts_of_mixed_length_as_generate_answers_them(architecture: str) -> None:
    engine, facts = engine_of(architecture), questions(200)
    table = evaluate(engine, facts, max_new_tokens=NEW)
    expected = [slow(engine, qa_prompt(fact.question), fact.answers[0]) for fact in facts]
    assert table["text"].to_list() == [text for text, _, _ in expected]
    assert table["gold_tokens"].to_list() == [tokens for _, tokens, _ in expected]
    means = [total / tokens for _, tokens, total in expected]
    assert table["gold_log_prob"].to_list() == pytest.approx(means, rel=1e-5)
    assert table["text"].n_unique() > 50


@pytest.mark.parametrize(
    ("form", "start"),
    [
        ("plain", "Question: {}\nAnswer:"),
        ("few-shot", "Question: Where is Rome?\nAnswer: Italy\n\nQuestion: {}\nAnswer:"),
        ("chat", "<user>{}<assistant>"),
    ],
)
def test_every_form_asks_and_scores_by_the_same_prompt(form: str, start: str) -> None:
    engine, facts = engine_of("llama"), questions(12)
    shots = [Fact("s", "Where is Rome?", ("Italy",))] if form == "few-shot" else []
    table = evaluate(engine, facts, max_new_tokens=NEW, form=form, shots=shots)
    for row, fact in zip(table.rows(named=True), facts, strict=True):
        space = "" if form == "chat" else " "
        text, tokens, total = slow(engine, start.format(fact.question), space + fact.answers[0])
        if form == "few-shot":
            text = next((line for line in text.splitlines() if line.strip()), "")
        assert row["text"] == text
        assert row["gold_tokens"] == tokens
        assert row["gold_log_prob"] * tokens == pytest.approx(total, rel=1e-5)


def test_an_answer_that_shares_a_token_with_the_prompt_is_spelled_on_its_own() -> None:
    tokenizer = tiny.tokenizer()
    prompt, answer = "The riv", "er runs"
    assert tokenizer(prompt + answer).input_ids[: len(tokenizer(prompt).input_ids)] != tokenizer(prompt).input_ids
    found = continuations(tokenizer, [Prompt(prompt, ""), Prompt("The", "")], [answer, " river"])
    assert found == [tokenizer(answer).input_ids, tokenizer(" river").input_ids]


def test_an_end_that_the_tokenizer_adds_is_no_part_of_the_answer() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny.tokenizer()
    bare = tokenizer("Paris").input_ids
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", 0)]
    )
    assert tokenizer("Paris").input_ids == [*bare, 0]
    tokenizer.chat_template = CHAT
    assert continuations(tokenizer, [Prompt("", "", user="Who?")], ["Paris"]) == [bare]


def test_what_cannot_be_scored_is_one_line() -> None:
    engine = engine_of("llama")
    with pytest.raises(InputError, match=r"fact 'x': the answer '<\|end\|>' is no token at all"):
        evaluate(engine, [Fact("x", "Who?", ("<|end|>",))])
    with pytest.raises(InputError, match="pass the model's context of 256"):
        evaluate(engine, [Fact("x", "Who? " * 200, ("a",))])
    with pytest.raises(InputError, match="pass the model's context of 256"):
        evaluate(engine, [Fact("x", "Who?", ("abc " * 250,))])
    engine.tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        evaluate(engine, [Fact("x", "Who?", ("a",))], form="chat")
    with torch.no_grad():
        engine.model.model.norm.weight[0] = float("nan")
    engine.model.name_or_path = "folder/damaged"
    with pytest.raises(
        InputError, match=r"^folder/damaged: the model's logits are not finite: its weights are damaged$"
    ):
        evaluate(engine, [Fact("x", "Who?", ("a",))])


@pytest.mark.parametrize("worth", [1, 1_000_000], ids=["begun apart", "all in one pack"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "phi3"])
def test_how_prompts_begin_is_read_once(architecture: str, worth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "WORTH_SHARING", worth)
    engine, facts = engine_of(architecture), questions(40)
    shots = [Fact(str(index), f"Where is the river {index}?", ("France",)) for index in range(3)]
    engine.rows = 1000  # so that one pack holds all
    evaluate(engine, facts[:2], max_new_tokens=1, form="few-shot", shots=shots)  # tries whether the model can be packed
    widths: list[int] = []
    watch = engine.model.register_forward_pre_hook(
        lambda _, __, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    table = evaluate(engine, facts, max_new_tokens=NEW, form="few-shot", shots=shots)
    watch.remove()
    start = "".join(f"Question: {shot.question}\nAnswer: France\n\n" for shot in shots)
    prompts = [Prompt(f"{start}Question: {fact.question}\nAnswer:", "") for fact in facts]
    gold = continuations(engine.tokenizer, prompts, [f" {fact.answers[0]}" for fact in facts])
    texts = [ids + more[:-1] for ids, more in zip(encode(engine.tokenizer, prompts), gold, strict=True)]
    distinct = {tuple(text[: end + 1]) for text in texts for end in range(len(text))}
    assert sum(width for width in widths if width > 1) == len(distinct)
    for row, fact in zip(table.rows(named=True), facts, strict=True):
        text, tokens, total = slow(engine, f"{start}Question: {fact.question}\nAnswer:", f" {fact.answers[0]}")
        assert row["text"] == next((line for line in text.splitlines() if line.strip()), "")
        assert row["gold_log_prob"] * tokens == pytest.approx(total, rel=1e-5)
