"""A made-up run and its report, built once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fake_run
import planted_page

from knowshift.report import build


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run folder with its report."""
    folder = fake_run.write(tmp_path_factory.mktemp("report") / "run")
    assert build(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small planted study with its tables and its page."""
    return planted_page.write(tmp_path_factory.mktemp("study") / "one")
