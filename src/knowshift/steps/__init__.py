"""One function a command: resolved options in, files and ``run.json`` out.

The command line and the demo both call these, so a figure has one way to come about. Rooms do the work; these
files join them: names become checkpoints, sources become facts, results become files. A file is imported when one of
its functions is first asked for: comparing weights loads nothing that asking questions needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knowshift.steps.answers import drift as drift
    from knowshift.steps.answers import evaluate as evaluate
    from knowshift.steps.answers import transitions as transitions
    from knowshift.steps.inputs import best_templates as best_templates
    from knowshift.steps.inputs import choose as choose
    from knowshift.steps.inputs import draw_shots as draw_shots
    from knowshift.steps.inputs import read_levels as read_levels
    from knowshift.steps.inputs import resolve_pair as resolve_pair
    from knowshift.steps.knowledge import mastery as mastery
    from knowshift.steps.knowledge import select_set as select_set
    from knowshift.steps.knowledge import select_until as select_until
    from knowshift.steps.knowledge import train as train
    from knowshift.steps.repairs import repair as repair
    from knowshift.steps.weights import diff as diff
    from knowshift.steps.weights import merge as merge
    from knowshift.steps.weights import patch_apply as patch_apply
    from knowshift.steps.weights import patch_revert as patch_revert
    from knowshift.steps.weights import restore as restore

_FILES = {
    "answers": ("drift", "evaluate", "transitions"),
    "inputs": ("best_templates", "choose", "draw_shots", "read_levels", "resolve_pair"),
    "knowledge": ("mastery", "select_set", "select_until", "train"),
    "repairs": ("repair",),
    "weights": ("diff", "merge", "patch_apply", "patch_revert", "restore"),
}


def __getattr__(name: str) -> Any:
    for file, functions in _FILES.items():
        if name in functions:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
