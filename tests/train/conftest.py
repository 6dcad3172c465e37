"""What tests of the ways to train share: a base to train, examples, and a cache of one's own."""

from pathlib import Path

import pytest
import torch
import train_twin as twin

import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In float32, so that what is written is what was trained, to the last bit."""
    return tiny.checkpoint(tmp_path_factory.mktemp("base") / "model", dtype=torch.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twin.write_pairs(tmp_path_factory.mktemp("data") / "train.jsonl")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))
