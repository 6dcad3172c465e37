"""Points of which more is better in both numbers: who is beaten by nobody, and how much all of them cover."""

import numpy as np
import numpy.typing as npt

from knowshift.measure.bootstrap import Floats

Flags = npt.NDArray[np.bool_]


def frontier(points: Floats) -> Flags:
    """(n,) whether no other of (n, 2) ``points`` is as good in both numbers and better in one."""
    as_good = (points[:, None] >= points[None]).all(-1)
    better = (points[:, None] > points[None]).any(-1)
    flags: Flags = np.logical_not((as_good & better).any(0))
    return flags


def layers(points: Floats) -> npt.NDArray[np.intp]:
    """(n,) 0 on the frontier, 1 on that of the others, and so on (non-dominated sorting)."""
    found = np.full(len(points), -1, np.intp)
    layer = 0
    while (left := np.flatnonzero(found < 0)).size:
        found[left[frontier(points[left])]] = layer
        layer += 1
    return found


def spread(points: Floats) -> Floats:
    """(n,) how far apart each point's neighbours are, as shares of the range, summed over both numbers.

    The crowding distance of Deb et al. 2002; the ends of the range are infinitely far from what is beyond them.
    """
    apart = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        width = ordered[-1] - ordered[0]
        apart[order[[0, -1]]] = np.inf
        if width:
            apart[order[1:-1]] += (ordered[2:] - ordered[:-2]) / width
    return apart


def hypervolume(points: Floats, reference: tuple[float, float]) -> float:
    """The area that is beaten by some of (n, 2) ``points`` and beats ``reference``."""
    area, height = 0.0, reference[1]
    for first, second in sorted(points.tolist(), reverse=True):
        if first > reference[0] and second > height:
            area += (first - reference[0]) * (second - height)
            height = second
    return area
