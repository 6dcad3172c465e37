"""The command line: parses, calls, prints; no logic. One file for each of the questions it answers.

Everything else is imported when a command needs it.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from knowshift.cli.app import app
from knowshift.errors import InputError

__all__ = ["app", "main"]

# Command files register with the application; the help page lists them in this order.
for _file in ("demo", "facts", "mastery", "train", "measure", "weights", "patch", "repair", "study", "report"):
    import_module(f"knowshift.cli.{_file}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        with _ended_by_sigterm():
            status = app(args=arguments, standalone_mode=False)
    except InputError as error:
        return fail(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return fail(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        print("knowshift: interrupted; the same command completes it", file=sys.stderr)
        return 130
    except Exception as error:
        return _usage(error)
    return status if isinstance(status, int) else 0


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let the signal by which batch systems end a process end a command as an error would.

    By itself it ends the process on the spot, and folders as large as the model stay behind half written.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _usage(error: Exception) -> int:
    """A usage error of the parser is one line; anything else is a bug and keeps its traceback."""
    show: Any = getattr(error, "format_message", None)
    if show is None:
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":
        print(show())
        return 2
    return fail(show())


def fail(message: str) -> int:
    """Print the one line a user reads, and return the exit status for bad input."""
    line = " ".join(message.split())
    print(f"knowshift: error: {line}", file=sys.stderr)
    return 2
