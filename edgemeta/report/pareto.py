"""Which points no other point beats on both counts."""

from __future__ import annotations

from collections.abc import Sequence


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the (cost, score) points on the front: lower cost, higher score; by rising cost, no duplicates.

    Points with a NaN are on no front: they fail every comparison.
    """
    front: list[int] = []
    best = float("-inf")
    for at in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        cost, score = points[at]
        if cost == cost and score > best:
            front.append(at)
            best = score
    return front
