"""Which points no other point beats, and how much room they leave to others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

from edgemeta.errors import BadConfig
from edgemeta.types import Cost, Trial

Point = tuple[float, ...]


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


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Volume that points (score, cost, ...) dominate inside a reference (score, cost, ...), of 2 to 4 numbers each.

    Scores rise, costs fall. The volume is in the product of all units, and exact: a sweep over two objectives, and
    slices along each one more (While 2006, doi:10.1109/TEVC.2005.851275, section III). Points that are not better
    than the reference in every number, or have a NaN, add nothing.

    >>> hypervolume([(6, 1), (9, 3)], (5, 4))  # 1 x 3 of the first, and 3 x 1 beyond it of the second
    6.0
    """
    if not 2 <= len(reference) <= 4 or any(len(point) != len(reference) for point in points):
        raise BadConfig(f"a hypervolume needs points of 2 to 4 numbers, as many as {reference} has; give each so many")
    return _volume(_front([gains for point in points if (gains := _gains(point, reference))]))


def hypervolumes(trials: Sequence[Trial], reference: Cost, *, score: float = 0.0) -> list[float]:
    """Hypervolume after each trial, from its score and what the reference caps: the finite fields of it.

    Every scored trial counts, of whatever fidelity; what is infeasible or failed leaves the volume as it was.
    """
    capped = [field.name for field in fields(reference) if math.isfinite(getattr(reference, field.name))]
    corner = (score, *(getattr(reference, name) for name in capped))
    if not 2 <= len(corner) <= 4:
        raise BadConfig(f"a hypervolume needs one to three finite costs to refer to, not {reference}; give these")
    front: list[Point] = []
    volumes: list[float] = []
    for trial in trials:
        point = (math.nan if trial.score is None else trial.score, *(getattr(trial.cost, name) for name in capped))
        gains = _gains(point, corner)
        grown = _front([*front, gains]) if gains else front
        volumes.append(volumes[-1] if volumes and grown == front else _volume(grown))
        front = grown
    return volumes


def _gains(point: Point, reference: Point) -> Point | None:
    """By how much a point is better, number by number; None where it is not in all."""
    score, *costs = point
    gains = (score - reference[0], *(limit - cost for limit, cost in zip(reference[1:], costs, strict=True)))
    return gains if all(gain > 0 for gain in gains) else None


def _front(gains: Sequence[Point]) -> list[Point]:
    """What nothing else equals or beats in every number, in the order given."""
    distinct = list(dict.fromkeys(gains))
    return [gain for gain in distinct if not any(_covers(other, gain) for other in distinct if other is not gain)]


def _covers(a: Point, b: Point) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True))


def _volume(gains: Sequence[Point]) -> float:
    """Volume of the union of boxes from the origin: slices along the last axis, each of what reaches it."""
    if gains and len(gains[0]) == 1:
        return max(gains)[0]
    total, reaching = 0.0, sorted(gains, key=lambda gain: gain[-1], reverse=True)
    for i, (*_, top) in enumerate(reaching):
        below = reaching[i + 1][-1] if i + 1 < len(reaching) else 0.0
        if top > below:
            total += (top - below) * _volume([gain[:-1] for gain in reaching[: i + 1]])
    return total
