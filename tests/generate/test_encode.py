"""Prompts as token ids: special tokens once, and what cannot be encoded is said in one line."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny
from knowshift.errors import InputError
from knowshift.generate.encode import chat_text, encode
from knowshift.generate.engine import Prompt

TEMPLATE = (
    "{% for m in messages %}<|end|>{{ m.role }}: {{ m.content }}{% endfor %}{{ '\\nbot:' if add_generation_prompt }}"
)


def test_a_chat_and_a_plain_text_together_each_as_alone() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    prompts = [Prompt("The river", "a"), Prompt(" It is", "b", user="Where?"), Prompt("", "c", user="Who?")]
    assert chat_text(tokenizer, prompts[1]) == "<|end|>user: Where?\nbot: It is"
    together = encode(tokenizer, prompts)
    assert together == [encode(tokenizer, [prompt])[0] for prompt in prompts]
    assert [ids.count(0) for ids in together] == [0, 1, 1]  # the template's own, and no other


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('system first') }}", "fails: system first"),
        ("{{ messages[0].content + 1 }}", "fails: "),
        ("{% for m in messages %}", "fails: "),
    ],
)
def test_a_chat_template_that_fails_is_one_line(template: str | None, said: str) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=r"^the model's [^\n]+$") as caught:
        encode(tokenizer, [Prompt("", "k", user="Who?")])
    assert said in str(caught.value)


def test_a_text_that_the_tokenizer_cannot_read() -> None:
    core = Tokenizer(models.WordLevel({"river": 0}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    assert encode(tokenizer, [Prompt("river", "k")]) == [[0]]
    with pytest.raises(InputError, match="the tokenizer cannot read the prompts"):
        encode(tokenizer, [Prompt("the river", "k")])
