"""A run's options from where a user gives them: flags, ``--set KEY=VALUE``, a YAML file.

Flags and ``--set`` say the same thing twice or not at all; both go before the file. What a key means is the options'
own business.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knowshift.errors import InputError
from knowshift.facts.fact import decode
from knowshift.train.options import TrainOptions, own_name


def gathered(flags: Mapping[str, Any], sets: Sequence[str], config: Path | None = None) -> TrainOptions:
    """The options of a run.

    Args:
        flags: options given by a flag of their own, by name; options of methods as ``METHOD.OPTION``.
        sets: ``KEY=VALUE`` as on the command line.
        config: a YAML file, a JSON file, or the ``run.json`` of an earlier run.

    Raises:
        InputError: an option given twice, unknown or of no use, or a file that cannot be read.
    """
    named: dict[str, Any] = {}
    for text in sets:
        key, value = parse_set(text)
        if any(own_name(other) == own_name(key) for other in (*named, *flags)):
            raise InputError(f"--set {key}: given twice")
        named[key] = value
    given = {own_name(key) for key in (*named, *flags)}
    values = {
        key: value for key, value in (read_config(config) if config else {}).items() if own_name(key) not in given
    }
    values |= named | dict(flags)
    own = {key: value for key, value in values.items() if key in TrainOptions.model_fields}
    return TrainOptions(**own, set={key: value for key, value in values.items() if key not in own})


def parse_set(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``; a value is read as JSON where it is JSON, else as text.

    Raises:
        InputError: without a key or ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text}: KEY=VALUE is expected, such as optim=adafactor")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value


def read_config(path: Path) -> dict[str, Any]:
    """The options a file sets, by name; what stands under a method's name is that method's.

    Raises:
        InputError: naming the file, and the line where it is not YAML.
    """
    import yaml  # type: ignore[import-untyped]

    from knowshift.train.methods import METHODS

    try:
        values = yaml.safe_load(decode(path.read_bytes(), str(path), start=True))
    except FileNotFoundError as error:
        raise InputError(f"--config {path}: no such file") from error
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if isinstance(values, dict) and values.get("command") == "train":
        values = values.get("options")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"--config {path}: options by name are expected, found {type(values).__name__}")
    found: dict[str, Any] = {}
    for key, value in values.items():
        nested = value if isinstance(value, dict) and (key in METHODS or key == "set") else None
        entries = {key: value} if nested is None else nested
        for name, entry in entries.items():
            full = f"{key}.{name}" if nested is not None and key != "set" else str(name)
            if any(own_name(other) == own_name(full) for other in found):
                raise InputError(f"--config {path}: {full} is given twice")
            found[full] = entry
    return found
