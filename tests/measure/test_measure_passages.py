"""Texts as tokens: where an answer begins and ends, and what is read together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

import tiny
from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.prompts import qa_prompt
from knowshift.measure.passages import Passage, batches, check_fit, gold_passages, prompt_passages

FACT = Fact("peru", "What is the capital of Peru?", ("Lima, a city", "Lima"))


def test_the_answer_is_what_follows_the_prompt_and_ends_with_the_end_token():
    tokenizer = tiny.tokenizer()
    (passage,) = gold_passages(tokenizer, [FACT])
    prompt = tokenizer(qa_prompt(FACT.question)).input_ids
    assert list(passage.ids[: len(prompt)]) == prompt
    assert tokenizer.decode(passage.targets[-passage.answer - 1 : -1]) == "Lima, a city"
    assert passage.targets[-1] == tokenizer.eos_token_id
    assert passage.ids[1:] == passage.targets[:-1]
    assert passage.kept == len(passage.ids) == len(passage.targets)


def test_special_tokens_are_the_tokenizers_business():
    tokenizer = tiny.tokenizer()
    plain = gold_passages(tokenizer, [FACT])[0]
    core = tokenizer.backend_tokenizer
    core.post_processor = processors.TemplateProcessing(
        single="X $A <|end|>", special_tokens=[("X", 7), ("<|end|>", tokenizer.eos_token_id)]
    )
    framed = gold_passages(tokenizer, [FACT])[0]
    assert framed.ids == (7, *plain.ids)
    assert framed.targets == (plain.ids[0], *plain.targets)
    assert framed.answer == plain.answer
    (prompt,) = prompt_passages(tokenizer, [FACT], ["The capital"])
    assert prompt.ids[0] == 7
    assert prompt.ids[-1] != tokenizer.eos_token_id
    assert prompt.kept == 1


def test_without_an_end_token_the_answer_ends_with_its_text():
    tokenizer = tiny.tokenizer()
    with_end = gold_passages(tokenizer, [FACT])[0]
    tokenizer.eos_token = None
    passage = gold_passages(tokenizer, [FACT])[0]
    assert passage.targets == with_end.targets[:-1]
    assert passage.ids == with_end.ids[:-1]
    assert (passage.answer, passage.end, with_end.end) == (with_end.answer, 0, 1)


def test_an_answer_or_prompt_of_no_token_is_refused():
    tokenizer = tiny.tokenizer()
    for answer in ("", "\u200b"):
        cleaned = tokenizer if not answer else _deaf_to(tiny.tokenizer(), answer)
        with pytest.raises(InputError, match=r"fact 'a': the answer .* is no token at all"):
            gold_passages(cleaned, [Fact("a", "Who?", (answer,))])
    with pytest.raises(InputError, match="fact 'peru': the prompt is no token at all"):
        prompt_passages(tokenizer, [FACT], [""])


def test_a_tokenizer_without_a_word_for_it_is_one_clear_line():
    core = Tokenizer(models.WordLevel({"red": 0}))
    with pytest.raises(InputError, match="the tokenizer cannot read these facts: WordLevel error"):
        gold_passages(PreTrainedTokenizerFast(tokenizer_object=core), [FACT])


def _deaf_to(tokenizer, text):
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(text, "")
    return tokenizer


def test_what_does_not_fit_is_named():
    names = ["fact 'peru'"]
    check_fit([Passage((1, 2, 3), 3, (2, 3, 9), 1)], names, context=3, rows=10)
    with pytest.raises(InputError, match="fact 'peru': 3 tokens do not fit the model's context of 2"):
        check_fit([Passage((1, 2, 3), 1)], names, context=2, rows=10)
    with pytest.raises(InputError, match="fact 'peru': token 9 is beyond the model's 9 vocabulary rows"):
        check_fit([Passage((1, 2, 3), 3, (2, 3, 9), 1)], names, context=None, rows=9)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 200))
def test_batches_hold_every_passage_once_and_keep_their_size(lengths, tokens):
    grouped = batches([(0,) * length for length in lengths], tokens)
    assert sorted(index for batch in grouped for index in batch) == list(range(len(lengths)))
    for batch in grouped:
        widths = [lengths[index] for index in batch]
        assert widths == sorted(widths, reverse=True)
        assert len(batch) == 1 or max(widths) * len(batch) <= tokens
