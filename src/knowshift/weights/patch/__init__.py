"""Restorations as reversible patches: one small file that makes the restored checkpoint from the tuned one, and back.

``codec`` packs one block of weights, ``contents`` is the digest of a tensor, ``manifest`` what a patch says of itself,
``container`` the file; ``write`` makes patches while a restoration is computed, ``turn`` applies and reverts them,
``show`` says what one is.
"""

from knowshift.weights.patch.container import Patch
from knowshift.weights.patch.manifest import Origin
from knowshift.weights.patch.show import describe, render
from knowshift.weights.patch.turn import apply, revert
from knowshift.weights.patch.write import SUFFIX, write_patches

__all__ = ["SUFFIX", "Origin", "Patch", "apply", "describe", "render", "revert", "write_patches"]
