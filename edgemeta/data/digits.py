"""Scikit-learn's handwritten digits: another domain to test on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemeta.data.dataset import BYTE, Dataset, with_channels
from edgemeta.data.images import resize
from edgemeta.types import Shape

SHARE = 22 / 28  # of an image's side that the digit's own 8x8 box fills, about as large as a glyph


def load_digits(*, in_shape: Shape, root: Path | None, cache: Path, seed: int) -> Dataset:
    """1,797 real digits of 8x8 pixels, enlarged, ink = 255, all for testing; the keywords but `in_shape` are not used.

    Source: Alpaydin and Kaynak 1998, UCI optical recognition of handwritten digits.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    channels, height, width = in_shape
    found = sklearn_digits()
    side = max(1, round(SHARE * min(height, width)))
    images = np.zeros((len(found.images), height, width), np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    gray = np.round(found.images * (255 / 16)).astype(np.uint8)
    images[:, top : top + side, left : left + side] = resize(gray, (side, side))
    names, labels = tuple(map(str, found.target_names)), found.target.astype(np.int64)
    splits = {"test": tuple(range(10))}
    return Dataset("digits", with_channels(images, channels), labels, names, splits, BYTE, ink_high=True)
