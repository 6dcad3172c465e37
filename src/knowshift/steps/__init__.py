"""One function a command: resolved options in, files and ``run.json`` out.

The command line and the demo both call these, so a figure has one way to come about. Rooms do the work; these
files join them: names become checkpoints, sources become facts, results become files.
"""

from knowshift.steps.answers import drift, evaluate, transitions
from knowshift.steps.inputs import best_templates, choose, draw_shots, read_levels, resolve_pair
from knowshift.steps.knowledge import mastery, select_set, select_until, train
from knowshift.steps.weights import diff, merge, patch_apply, patch_revert, restore

__all__ = [
    "best_templates",
    "choose",
    "diff",
    "draw_shots",
    "drift",
    "evaluate",
    "mastery",
    "merge",
    "patch_apply",
    "patch_revert",
    "read_levels",
    "resolve_pair",
    "restore",
    "select_set",
    "select_until",
    "train",
    "transitions",
]
