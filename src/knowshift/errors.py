"""The one exception a user is meant to read."""


class InputError(Exception):
    """Bad input or usage: the command line prints the message as one line and exits with status 2.

    The message names the file and place (line, tensor, flag) and says what to do.
    """


def missing_extra(package: str, extra: str) -> InputError:
    """The error for an optional package that is not installed."""
    return InputError(f"{package} is needed here and is not installed: pip install 'knowshift[{extra}]'")
