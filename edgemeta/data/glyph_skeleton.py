"""What a template is rendered from: a signed distance field, and the strokes of its skeleton."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import convolve, distance_transform_edt, label
from torch import Tensor

from edgemeta.data.glyph_select import GRID

UNITS_PER_CELL = 0.5  # a template cell in units; an image is 28 units wide
MAX_STROKES = 16
MIN_STROKE_CELLS = 6  # shorter branches are spurs of the thinning
PADDING = 1e3  # a coordinate so far out that it leaves no ink
_AROUND = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))  # north, then clockwise
_RING = np.ones((3, 3), np.int8)


class Templates(NamedTuple):
    """t templates of at most p skeleton points. Distances are in units, points (x, y) from the centre."""

    field: Tensor  # (t, GRID, GRID) distance to the outline, positive inside
    points: Tensor  # (t, p, 2), PADDING past a template's own
    stroke: Tensor  # (t, p) int64: the stroke that a point belongs to
    length: Tensor  # (t,) int64: how many points are its own


def templates(masks: np.ndarray) -> Templates:
    """Masks (t, GRID, GRID) uint8 -> templates."""
    ink = masks > 127
    fields = [distance_transform_edt(m) - distance_transform_edt(~m) for m in ink]
    skeletons = [strokes(s) for s in thin(ink)]
    length = np.array([len(points) for points, _ in skeletons])
    points = np.full((len(ink), length.max(), 2), PADDING, np.float32)
    stroke = np.zeros((len(ink), length.max()), np.int64)
    for i, (xy, of) in enumerate(skeletons):
        points[i, : len(xy)], stroke[i, : len(xy)] = xy, of
    field = np.stack(fields).astype(np.float32) * UNITS_PER_CELL
    return Templates(*map(torch.from_numpy, (field, points, stroke, length)))


def thin(ink: np.ndarray) -> np.ndarray:
    """Skeletons of a batch of shapes (n, h, w) bool whose outermost cells are empty. Source: Zhang and Suen 1984."""
    ink = ink.copy()
    active = np.arange(len(ink))
    while len(active):
        before = ink[active]
        after = _peel(_peel(before, first=True), first=False)
        ink[active] = after
        active = active[(after != before).any((1, 2))]
    return ink


def _peel(ink: np.ndarray, *, first: bool) -> np.ndarray:
    """One pass of the thinning: the first takes south-east borders and north-west corners, the second the others."""
    ring = [np.roll(ink, shift, (1, 2)) for shift in _AROUND]
    neighbours = sum(cell.astype(np.int8) for cell in ring)
    starts = sum((~ring[i] & ring[(i + 1) % 8]).astype(np.int8) for i in range(8))
    north, east, south, west = ring[::2]
    if first:
        outside = ~(north & east & south) & ~(east & south & west)
    else:
        outside = ~(north & east & west) & ~(north & south & west)
    return ink & ~((neighbours >= 2) & (neighbours <= 6) & (starts == 1) & outside)


def strokes(skeleton: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (p, 2) of a skeleton (GRID, GRID) in units, and the stroke (p,) of each.

    Strokes are what remains connected without the crossings; spurs and crossings join the nearest stroke.
    """
    points = (np.argwhere(skeleton)[:, ::-1] - (GRID - 1) / 2) * UNITS_PER_CELL
    crossing = skeleton & (convolve(skeleton.astype(np.int8), _RING, mode="constant") >= 4)
    branch, n = label(skeleton & ~crossing, _RING)
    if n < 2:
        return points, np.zeros(len(points), np.int64)
    sizes = np.bincount(branch.ravel(), minlength=n + 1)[1:]
    long = 1 + np.flatnonzero(sizes >= min(MIN_STROKE_CELLS, sizes.max()))
    _, (row, column) = distance_transform_edt(~np.isin(branch, long), return_indices=True)
    number = np.searchsorted(long, branch[row, column][skeleton])
    return points, np.minimum(number, MAX_STROKES - 1)
