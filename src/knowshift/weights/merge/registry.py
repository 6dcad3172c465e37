"""Every method by name."""

from dataclasses import fields

from knowshift.errors import InputError
from knowshift.weights.merge.dare import Dare
from knowshift.weights.merge.dg_hard import DgHard
from knowshift.weights.merge.fapm import Fapm
from knowshift.weights.merge.hft import Hft
from knowshift.weights.merge.interpolate import Interpolate
from knowshift.weights.merge.layers import Layers
from knowshift.weights.merge.method import Method, Option
from knowshift.weights.merge.modules import Modules
from knowshift.weights.merge.random import RandomRestore
from knowshift.weights.merge.ties_trim import TiesTrim

METHODS: dict[str, type] = {
    "interpolate": Interpolate,
    "random": RandomRestore,
    "dare": Dare,
    "ties-trim": TiesTrim,
    "fapm": Fapm,
    "dg-hard": DgHard,
    "hft": Hft,
    "layers": Layers,
    "modules": Modules,
}


def method(name: str, **options: Option) -> Method:
    """The method called ``name``; options that are None keep their defaults.

    Raises:
        InputError: if there is no such method, or it does not know or refuses an option.
    """
    if name not in METHODS:
        raise InputError(f"merge {name}: must be one of {', '.join(METHODS)}")
    given = {option: value for option, value in options.items() if value is not None}
    known = [field.name for field in fields(METHODS[name])]
    for option in given:
        if option not in known:
            flags = ", ".join(flag(field) for field in known)
            raise InputError(f"merge {name} has no option {flag(option)}; it has {flags}")
    made: Method = METHODS[name](**given)
    return made


def flag(option: str) -> str:
    """How the command line spells an option."""
    return "--" + option.replace("_", "-")
