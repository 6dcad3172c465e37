"""The command line: parses, calls, prints; no logic. One file for each of the questions it answers.

Everything else is imported when a command needs it.
"""

import sys
from importlib import import_module
from typing import Any

from knowshift.cli.app import app
from knowshift.errors import InputError

__all__ = ["app", "main"]

# Command files register with the application; the help page lists them in this order.
for _file in ("demo", "facts", "mastery", "train", "measure", "weights", "patch", "report"):
    import_module(f"knowshift.cli.{_file}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        status = app(args=arguments, standalone_mode=False)
    except InputError as error:
        return fail(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return fail(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        print("knowshift: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    except Exception as error:
        return _usage(error)
    return status if isinstance(status, int) else 0


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
