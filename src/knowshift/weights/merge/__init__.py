"""Controls and rivals of restoration, each made from the same two checkpoints and written the same way.

One method a file; ``METHODS`` is the registry. What a method is, see ``method.Method``; to add one, write its file and
name it in ``registry``.
"""

from knowshift.weights.merge.method import Method
from knowshift.weights.merge.registry import METHODS, method
from knowshift.weights.merge.write import Merged, merge, write

__all__ = ["METHODS", "Merged", "Method", "merge", "method", "write"]
