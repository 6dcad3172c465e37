"""Fixtures shared by all tests."""

import os
import sys
from pathlib import Path

import pytest

# Tests run beside each other; on models this small a second thread costs more than it brings.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))

import tiny


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tied Llama in bfloat16."""
    return tiny.checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def tuned_folder(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base_folder`` with half of its weights moved."""
    return tiny.nudge(base_folder, tmp_path_factory.mktemp("tuned") / "model")
