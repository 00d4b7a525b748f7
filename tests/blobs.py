"""A small real image problem for tests: each class is a random arrangement of strokes, each image a shaky copy."""

import numpy as np
import torch

from edgemeta.data.episode import Pool


def blob_pool(*, classes: int, seed: int, per_class: int = 10, size: int = 12) -> Pool:
    """Classes of (1, size, size) uint8 images that a small net can learn to tell apart in moments."""
    rng = np.random.default_rng(seed)
    low = rng.random((classes, 1, 4, 4)) > 0.5
    images = low.repeat(per_class, 0).repeat(size // 4, 2).repeat(size // 4, 3) * 200.0
    shifted = np.stack([np.roll(image, rng.integers(-1, 2, 2), (1, 2)) for image in images])
    noisy = np.clip(shifted + rng.normal(0, 25, shifted.shape), 0, 255).astype(np.uint8)
    by_class = tuple(np.split(np.arange(classes * per_class), classes))
    return Pool(torch.from_numpy(noisy), 1 / 255, by_class, tuple(map(str, range(classes))))
