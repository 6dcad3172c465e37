"""A model trained here on invented facts, each shown as often as a test says: what it knows is known."""

import random
from collections.abc import Iterator

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
BATCH = 32


def names(seed: int = 3) -> Iterator[str]:
    """Different words of three syllables out of 70: by chance one comes once in 343,000 times."""
    draw = random.Random(seed)
    return iter({"".join(draw.sample(SYLLABLES, 3)).capitalize(): None for _ in range(1000)})


def tokenizer_for(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows the words of ``texts`` and the syllables, but no whole answer."""
    draw = random.Random(4)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    texts = [*texts, *("".join(draw.sample(SYLLABLES, 3)).capitalize() for _ in range(800))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")


def trained_model(texts: list[str], tokenizer: PreTrainedTokenizerFast, passes: int = 40) -> LlamaForCausalLM:
    """Two layers, a plain loop over ``texts``, each ended by the end token; ten seconds for 200 texts."""
    torch.manual_seed(0)
    sentences = [[*tokenizer(text).input_ids, 0] for text in texts]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    batches = passes * -(-len(sentences) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=batches)
    draw = random.Random(5)
    for _ in range(passes):
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
