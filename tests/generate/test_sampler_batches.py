"""A prompt's draws are its own: not the batch's, the order's, the rows', or of the call that asked for them."""

import random

import pytest
import torch
from sampling import enliven
from tokenizers import processors

import tiny
from knowshift.generate.encode import encode
from knowshift.generate.engine import Completion, Prompt
from knowshift.generate.transformers_engine import TransformersEngine

OPTIONS = {"samples": 10, "temperature": 0.3, "max_new_tokens": 8, "seed": 3}
OPENINGS = ("The capital of France is", "The river", "Question: what is the capital of Peru? Answer:", "Nobody", "a")
PROMPTS = [Prompt(f"{OPENINGS[index % 5]} {index * index}", f"fact {index}") for index in range(500)]


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma3"])
def engine(request: pytest.FixtureRequest) -> TransformersEngine:
    model = tiny.model(request.param)
    enliven(model, 8.0)
    return TransformersEngine(model, tiny.tokenizer(), rows=256)


@pytest.fixture(scope="module")
def together(engine: TransformersEngine) -> list[list[Completion]]:
    return engine.sample(PROMPTS, **OPTIONS)


def agree(left: list[list[Completion]], right: list[list[Completion]]) -> bool:
    """At least 99.9 % identical: what differs is the rounding of a batched matrix product."""
    pairs = [pair for x, y in zip(left, right, strict=True) for pair in zip(x, y, strict=True)]
    return sum(a == b for a, b in pairs) >= 0.999 * len(pairs)


def test_alone_and_among_five_hundred(engine: TransformersEngine, together: list[list[Completion]]) -> None:
    alone = [engine.sample([prompt], **OPTIONS)[0] for prompt in PROMPTS[::5]]
    assert agree(alone, together[::5])
    assert len({draw.text for draws in alone for draw in draws}) > 200


@pytest.mark.parametrize("rows", [16, 1000])
def test_other_rows(engine: TransformersEngine, together: list[list[Completion]], rows: int) -> None:
    other = TransformersEngine(engine.model, engine.tokenizer, rows=rows)
    assert agree(other.sample(PROMPTS[:250], **OPTIONS), together[:250])


def test_other_order(engine: TransformersEngine, together: list[list[Completion]]) -> None:
    order = random.Random(0).sample(range(500), 500)
    shuffled = engine.sample([PROMPTS[index] for index in order], **OPTIONS)
    assert agree(shuffled, [together[index] for index in order])


def test_a_stream_goes_on_where_it_was(engine: TransformersEngine, together: list[list[Completion]]) -> None:
    rest = {name: value for name, value in OPTIONS.items() if name != "samples"}
    some, more = (engine.sample(PROMPTS, samples=samples, first=first, **rest) for first, samples in ((0, 4), (4, 6)))
    assert agree([a + b for a, b in zip(some, more, strict=True)], together)


def test_the_same_call_gives_the_very_same(engine: TransformersEngine, together: list[list[Completion]]) -> None:
    assert engine.sample(PROMPTS, **OPTIONS) == together
    fresh = TransformersEngine(engine.model, engine.tokenizer, rows=engine.rows)
    assert fresh.sample(PROMPTS, **OPTIONS) == together


def test_seed_and_key_decide(engine: TransformersEngine) -> None:
    def ask(key: str, seed: int) -> list[Completion]:
        return engine.sample([Prompt(PROMPTS[0].text, key)], **(OPTIONS | {"seed": seed}))[0]

    assert ask("a", 0) == ask("a", 0)
    assert ask("a", 0) != ask("a", 1)
    assert ask("a", 0) != ask("b", 0)


def test_a_stop_ends_one_prompts_draws_only(engine: TransformersEngine, together: list[list[Completion]]) -> None:
    """Draws that go on are not touched by those that end."""
    stopped = engine.sample(PROMPTS, stop=lambda index, text: index % 2 == 0 and " " in text, **OPTIONS)
    assert agree(stopped[1::2], together[1::2])
    pairs = [pair for x, y in zip(together[::2], stopped[::2], strict=True) for pair in zip(x, y, strict=True)]
    right = [
        " " in cut.text and " " not in cut.text[:-12] and free.text.startswith(cut.text.rstrip("\ufffd"))
        if cut.finish == "stop"
        else cut == free and " " not in cut.text
        for free, cut in pairs
    ]
    assert sum(right) >= 0.999 * len(pairs)
    assert sum(cut.finish == "stop" for _, cut in pairs) > 50


CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


@pytest.fixture
def chatty() -> TransformersEngine:
    """A tokenizer that puts a beginning token before every text, and a chat template that writes it too."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = CHAT
    model = tiny.model("llama", vocabulary=len(tokenizer))
    enliven(model, 8.0)
    return TransformersEngine(model, tokenizer)


@pytest.mark.parametrize("start", ["", "The capital of Peru is"])
def test_a_chat_prompt_is_what_the_template_makes_of_it(chatty: TransformersEngine, start: str) -> None:
    tokenizer = chatty.tokenizer
    turn = [{"role": "user", "content": "What is the capital of Peru?"}]
    opened = tokenizer.apply_chat_template(turn, tokenize=True, add_generation_prompt=True, return_dict=False)
    prompt = Prompt(start, "k", user=turn[0]["content"])
    bare = Prompt("The river", "k")
    chat_ids, bare_ids = encode(tokenizer, [prompt, bare])
    assert chat_ids == opened + tokenizer(start, add_special_tokens=False).input_ids
    assert chat_ids.count(tokenizer.bos_token_id) == 1
    assert bare_ids[0] == tokenizer.bos_token_id and bare_ids == tokenizer("The river").input_ids
    asked = chatty.sample([bare, prompt], samples=1, temperature=0.5, max_new_tokens=12, seed=0, greedy=True)
    for ids, draws in zip((bare_ids, chat_ids), asked, strict=True):
        inputs = torch.tensor([ids])
        whole = chatty.model.generate(
            inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=12, do_sample=False
        )
        assert draws[-1].text == tokenizer.decode(whole[0, len(ids) :], skip_special_tokens=True)
