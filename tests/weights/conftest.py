"""Pairs of tiny checkpoints: every architecture, every stored type, sharded and not."""

from pathlib import Path

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

import tiny

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def mixtral(folder: Path, dtype: torch.dtype) -> Path:
    """A tiny mixture of experts, whose file names one tensor for each expert."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        max_position_embeddings=256,
    )
    MixtralForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory: pytest.TempPathFactory):
    """``pair_of(architecture, dtype, sharded)``: folders of a base and a tuned model, made once."""
    made: dict[tuple, tuple[Path, Path]] = {}

    def make(architecture: str = "llama", dtype: str = "bf16", sharded: bool = False) -> tuple[Path, Path]:
        key = (architecture, dtype, sharded)
        if key not in made:
            folder = tmp_path_factory.mktemp("pair")
            # Base whole and tuned in shards: the two need not be cut alike.
            base = mixtral(folder / "base", TYPES[dtype]) if architecture == "mixtral" else None
            base = base or tiny.checkpoint(folder / "base", architecture, dtype=TYPES[dtype])
            size = "20KB" if sharded else "5GB"
            made[key] = base, tiny.nudge(base, folder / "tuned", scale=0.002, shard_size=size)
        return made[key]

    return make


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut tensors into so many tiles that ties and thresholds fall inside and between them."""
    monkeypatch.setattr("knowshift.weights.walk.TILE", 97)
