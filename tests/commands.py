"""The command line as a test calls it."""

import pytest

from knowshift.cli import main


def run(*arguments: object) -> int:
    """Run ``knowshift`` in this process; its exit status."""
    return main([str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run what must be refused; the one line it prints."""
    capsys.readouterr()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("knowshift: error: ")
    assert error.count("\n") == 1
    return error
