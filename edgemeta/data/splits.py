"""Splits by class: what is tested was never trained on."""

from __future__ import annotations

import numpy as np

MIN_CLASSES = 15  # fewer cannot give three splits of 5-way episodes at 60 / 20 / 20 %
HELD_OUT = 0.2


def by_class(classes: int, *, seed: int) -> dict[str, tuple[int, ...]]:
    """60 % of the classes to train on, 20 % each for validation and test, at random; all to test where they are few.

    At least five classes stay in each part, so that 5-way episodes exist.

    >>> {name: len(classes) for name, classes in by_class(100, seed=0).items()}
    {'test': 20, 'val': 20, 'train': 60}
    """
    if classes < MIN_CLASSES:
        return {"test": tuple(range(classes))}
    held = max(5, round(HELD_OUT * classes))
    order = np.random.default_rng(seed).permutation(classes)
    parts = {"test": order[:held], "val": order[held : 2 * held], "train": order[2 * held :]}
    return {name: tuple(sorted(part.tolist())) for name, part in parts.items()}
