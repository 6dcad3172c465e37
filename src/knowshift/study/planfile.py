"""A plan as a YAML file: read with the line named where it is wrong, and written with a comment to every key."""

from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from knowshift.errors import InputError
from knowshift.facts.fact import decode
from knowshift.files import atomic_file
from knowshift.mastery.ask import MasteryOptions
from knowshift.study.plan import FIXED, Plan, check

PRESETS = ("paper", "small", "smoke")


def read_plan(path: Path) -> Plan:
    """The plan in a YAML file.

    Raises:
        InputError: naming the file, and where possible line and key.
    """
    try:
        text = decode(path.read_bytes(), str(path), start=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such plan; `knowshift study init {path}` writes one") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_plan(text, str(path))


def parse_plan(text: str, name: str) -> Plan:
    """The plan in the text of a YAML file called ``name``.

    Raises:
        InputError: as ``read_plan``.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{name}{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{name}: a plan with keys such as models and sizes is expected")
    twice = _twice(root, name)
    if twice:
        raise InputError(twice)
    try:
        plan = Plan(**values)
        check(plan)
    except ValidationError as error:
        first = error.errors()[0]
        line, key = _place(root, first["loc"])
        unknown = first["type"] == "extra_forbidden"
        message = "no such key" if unknown else first["msg"].removeprefix("Value error, ")
        raise InputError(f"{name}:{line}: {key + ': ' if key else ''}{message}") from error
    except TypeError as error:  # a key that is no text
        raise InputError(f"{name}: {error}") from error
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return plan


def _place(root: Any, location: tuple[Any, ...]) -> tuple[int, str]:
    """The line, from 1, and the name of the innermost part of ``location`` that stands in the file."""
    node, line = root, root.start_mark.line
    found: list[str] = []
    for part in location:
        entries = node.value if isinstance(node.value, list) else []
        if entries and isinstance(entries[0], tuple):
            inner = next((entry for entry in entries if entry[0].value == str(part)), None)
            if inner is None:
                continue
            line, node = inner[0].start_mark.line, inner[1]
        elif isinstance(part, int) and part < len(entries):
            node = entries[part]
            line = node.start_mark.line
        else:  # what pydantic calls the branch of a union
            continue
        found.append(str(part))
    return int(line) + 1, ".".join(found)


def _twice(node: Any, name: str) -> str | None:
    """A complaint about a key that stands twice, of which YAML would silently keep the last."""
    if not isinstance(node.value, list):
        return None
    seen = set()
    for entry in node.value:
        key, value = entry if isinstance(entry, tuple) else (None, entry)
        if key is not None:
            if key.value in seen:
                return f"{name}:{key.start_mark.line + 1}: {key.value} stands twice"
            seen.add(key.value)
        if complaint := _twice(value, name):
            return complaint
    return None


def preset(name: str) -> Plan:
    """One of the plans that come with knowshift.

    Raises:
        InputError: if there is none of that name.
    """
    return parse_plan(_preset_text(name), f"preset {name}")


def write_commented(path: Path, name: str) -> None:
    """Write a preset with every key there is, each under its description.

    Raises:
        InputError: if there is no such preset, or something is at ``path`` already.
    """
    if path.exists():
        raise InputError(f"{path}: is there already")
    lead = [line for line in _preset_text(name).splitlines() if line.startswith("#")]
    with atomic_file(path) as partial:
        partial.write_text("\n".join([*lead, *_commented(preset(name), 0)]) + "\n", "utf-8")


def _preset_text(name: str) -> str:
    if name not in PRESETS:
        raise InputError(f"--preset {name}: choose from {', '.join(PRESETS)}")
    return resources.files("knowshift.study.presets").joinpath(f"{name}.yaml").read_text("utf-8")


def _commented(keys: BaseModel, depth: int) -> Iterator[str]:
    """The keys of a plan with their values, each under its description; what holds keys is indented."""
    import yaml

    indent = "  " * depth
    for name, field in type(keys).model_fields.items():
        value = getattr(keys, name)
        if isinstance(keys, MasteryOptions) and name in FIXED:
            continue
        if not depth:
            yield ""
        if field.description:
            yield f"{indent}# {field.description}"
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _commented(value, depth + 1)
            continue
        # A list around it, so that a single word is written as any other value is.
        text = yaml.safe_dump(
            [_sparse(value)], default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
        )
        yield f"{indent}{name}: {text.strip()[1:-1]}"


def _sparse(value: Any) -> Any:
    """A value as YAML takes it; of a method in a list only what is set, and its name alone where nothing is."""
    if isinstance(value, BaseModel):
        given = {name: _sparse(entry) for name, entry in value if entry not in (None, {})}
        return given["method"] if given.keys() == {"method"} else given
    if isinstance(value, Mapping):
        return {name: _sparse(entry) for name, entry in value.items()}
    return [_sparse(entry) for entry in value] if isinstance(value, tuple | list) else value
