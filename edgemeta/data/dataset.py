"""The record that every source of data returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgemeta.types import Shape

BYTE = 1 / 255


@dataclass(frozen=True)
class Dataset:
    """Labelled examples, kept compact: a network sees `images * scale`."""

    name: str
    images: np.ndarray = field(repr=False)  # (n, C, H, W) uint8, or float32 for sensor data
    labels: np.ndarray = field(repr=False)  # (n,) int64 in 0..len(class_names)-1
    class_names: tuple[str, ...] = field(repr=False)
    splits: Mapping[str, tuple[int, ...]] = field(repr=False)  # "train", "val", "test" -> classes
    scale: float  # 1/255 for uint8, else 1
    synthetic: bool = False
    ink_high: bool = False  # strokes are bright on a dark ground; a device turns images of dark ink over
    notes: tuple[str, ...] = ()  # what the reader should know, e.g. "skipped 1 unreadable image: a/b.png"

    @property
    def in_shape(self) -> Shape:
        return self.images.shape[1:]


def with_channels(gray: np.ndarray, channels: int) -> np.ndarray:
    """(n, H, W) -> (n, channels, H, W), a view whose channels share their memory."""
    n, row, column = gray.strides
    shape = (len(gray), channels, *gray.shape[1:])
    return np.lib.stride_tricks.as_strided(gray, shape, (n, 0, row, column))
