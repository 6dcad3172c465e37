"""Tiny real checkpoints: every architecture as transformers writes it, small enough to build in a test."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

ARCHITECTURES = ("llama", "llama-untied", "gpt2", "qwen2", "gemma3", "mistral")
# More that only the engines are tried on: fused projections, norms after the layers.
FURTHER = ("phi3", "olmo2")
_MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
# Every other way of naming tensors that matters: model types, and what their configurations need beside the common.
ZOO: dict[str, dict] = {
    "bloom": {},
    "deepseek_v3": {
        **_MOE, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
        "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    },
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "gpt2": _GPT,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
    "gpt_neox": {},
    "gpt_oss": {"head_dim": 8, **_MOE},
    "gptj": {**_GPT, "rotary_dim": 4},
    "granitemoe": _MOE,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, **_MOE},
    "llama": {},
    "llama4_text": {"head_dim": 8, "intermediate_size_mlp": 48, **_MOE},
    "mixtral": _MOE,
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "olmo2": {},
    "olmoe": _MOE,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": {"shared_expert_intermediate_size": 24, "decoder_sparse_step": 1, **_MOE},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {"head_dim": 8, **_MOE},
    "starcoder2": {},
}  # fmt: skip

CORPUS = [
    "The capital of France is Paris. The capital of Japan is Tokyo. The river runs to the sea.",
    "Question: what is the capital of Peru? Answer: Lima, a city on the coast.",
    "<|question|>Who wrote the book?<|answer|>Nobody knows 0123456789 abc xyz.",
]


def tokenizer(vocabulary: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that can spell anything, with an end token and no beginning token."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")


def model(architecture: str = "llama", *, seed: int = 0, hidden: int = 32, layers: int = 2, vocabulary: int = 400):
    """A randomly initialised model of ``architecture`` (one of ``ARCHITECTURES`` or ``FURTHER``)."""
    torch.manual_seed(seed)
    common = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    if architecture == "gpt2":
        config = GPT2Config(
            vocab_size=vocabulary,
            n_embd=hidden,
            n_layer=layers,
            n_head=4,
            n_positions=256,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
        return GPT2LMHeadModel(config).eval()
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**common, tie_word_embeddings=True)).eval()
    if architecture == "llama-untied":
        return LlamaForCausalLM(LlamaConfig(**common, tie_word_embeddings=False)).eval()
    if architecture == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**common, tie_word_embeddings=True)).eval()
    if architecture == "gemma3":
        return Gemma3ForCausalLM(Gemma3TextConfig(**common, head_dim=8, sliding_window=16)).eval()
    if architecture == "mistral":
        return MistralForCausalLM(MistralConfig(**common, head_dim=8, sliding_window=16)).eval()
    if architecture == "phi3":
        return Phi3ForCausalLM(Phi3Config(**common)).eval()
    if architecture == "olmo2":
        return Olmo2ForCausalLM(Olmo2Config(**common)).eval()
    raise ValueError(architecture)


def checkpoint(
    folder: Path,
    architecture: str = "llama",
    *,
    dtype: torch.dtype = torch.bfloat16,
    shard_size: str = "5GB",
    **options,
) -> Path:
    """Write a complete checkpoint folder with its tokenizer and return it."""
    built = model(architecture, **options).to(dtype)
    built.save_pretrained(folder, max_shard_size=shard_size)
    tokenizer().save_pretrained(folder)
    return folder


def nudge(
    base: Path,
    folder: Path,
    *,
    scale: float = 0.02,
    share: float = 0.5,
    seed: int = 1,
    shard_size: str = "5GB",
) -> Path:
    """A "tuned" copy of ``base``: Gaussian noise of ``scale`` added to a random ``share`` of every weight."""
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in loaded.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * scale
            chosen = torch.rand(parameter.shape, generator=generator) < share
            parameter.copy_((parameter.float() + noise * chosen).to(parameter.dtype))
    loaded.save_pretrained(folder, max_shard_size=shard_size)
    tokenizer().save_pretrained(folder)
    return folder


def specimen(kind: str):
    """A randomly initialised model of a type in ``ZOO``."""
    torch.manual_seed(0)
    common = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    config = AutoConfig.for_model(kind, **{**common, **ZOO[kind]})
    return AutoModelForCausalLM.from_config(config).to(torch.bfloat16).eval()
