"""Ground truth: a model trained here on invented facts shown never, now and then, and often, then scored."""

import random

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from knowshift.cli import main
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.facts.templates import templates_for

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
SHOWN = {"never": 0, "seldom": 1, "often": 21}  # sentences of each fact in one pass over the data
EACH, PASSES, BATCH = 8, 40, 32


def invented_facts() -> list[Fact]:
    """Countries and capitals of three syllables out of 70: by chance an answer comes once in 343,000 times."""
    draw = random.Random(3)
    words = iter({"".join(draw.sample(SYLLABLES, 3)).capitalize(): None for _ in range(1000)})
    return [
        Fact(
            id=f"{group}:{number}",
            question=f"What is the capital of {(subject := next(words))}?",
            answers=(next(words),),
            topic="capital_of_country",
            subject=subject,
        )
        for group in SHOWN
        for number in range(EACH)
    ]


def group_of(fact: Fact) -> str:
    return fact.id.partition(":")[0]


def tokenizer_for(facts: list[Fact]) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows the templates' words and the syllables, but no whole answer."""
    draw = random.Random(4)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    texts = [text for fact in facts for text in templates_for(fact)]
    texts += ["".join(draw.sample(SYLLABLES, 3)).capitalize() for _ in range(800)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")


def trained_model(sentences: list[list[int]], vocabulary: int) -> LlamaForCausalLM:
    """Two layers, a plain loop, about ten seconds."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    batches = PASSES * -(-len(sentences) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=batches)
    draw = random.Random(5)
    for _ in range(PASSES):
        order = draw.sample(sentences, len(sentences))
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            width = max(map(len, some))
            ids = torch.tensor([one + [0] * (width - len(one)) for one in some])
            labels = torch.tensor([one + [-100] * (width - len(one)) for one in some])
            model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model.eval()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    folder = tmp_path_factory.mktemp("truth")
    facts = invented_facts()
    tokenizer = tokenizer_for(facts)
    sentences = [
        f"{templates_for(fact)[index]} {fact.answers[0]}." for fact in facts for index in range(SHOWN[group_of(fact)])
    ]
    model = trained_model([[*tokenizer(text).input_ids, 0] for text in sentences], len(tokenizer))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_jsonl(folder / "facts.jsonl", (fact.to_json() for fact in facts))
    command = ["mastery", str(folder / "model"), "--facts", str(folder / "facts.jsonl"), "--out", str(folder / "out")]
    assert main([*command, "--max-new-tokens", "8"]) == 0
    scored = pl.read_parquet(folder / "out" / "mastery.parquet")
    return scored.with_columns(group=pl.col("id").str.split(":").list.first())


def test_mastery_orders_what_was_shown_never_seldom_and_often(table: pl.DataFrame) -> None:
    assert table["trials"].to_list() == [210] * (3 * EACH)
    shares = {name: table.filter(group=name)["mastery"] for name in SHOWN}
    assert shares["never"].max() == 0
    assert shares["seldom"].mean() > 0.03
    assert shares["often"].min() > max(0.75, shares["seldom"].max())


def test_levels(table: pl.DataFrame) -> None:
    assert set(table.filter(group="never")["level"]) == {0}
    assert set(table.filter(group="often")["level"]) == {4}
    assert table.filter(group="seldom")["level"].is_between(1, 3).mean() >= 0.75


def test_strict_hits_agree(table: pl.DataFrame) -> None:
    """The model says nothing but answers, so an answer it gives is whole words on the first line."""
    assert (table["strict_hits"] <= table["hits"]).all()
    assert table["strict_hits"].sum() >= 0.98 * table["hits"].sum()


def test_slick_classes(table: pl.DataFrame) -> None:
    classes = {name: set(table.filter(group=name)["slick"]) for name in SHOWN}
    assert classes["never"] == {"Unknown"}
    assert classes["often"] <= {"HighlyKnown", "MaybeKnown"}
    assert "HighlyKnown" in classes["often"]
    assert classes["seldom"] <= {"MaybeKnown", "WeaklyKnown", "Unknown"}
    assert (table.filter(slick="HighlyKnown")["greedy_hits"] == 21).all()
