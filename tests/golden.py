"""Known answers, from torch: every runtime faces the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from edgemeta.contracts import Learner, Params, Support
from edgemeta.learners.train import adapt

SCALE = np.float32(1 / 255)


def answers(
    learner: Learner, slow: Params, shots: Sequence[tuple[str, np.ndarray]], queries: Sequence[np.ndarray]
) -> tuple[list[str], np.ndarray]:
    """The classes in the order of their first example, and logits (q, way) after learning from `shots` in their order.

    Images are uint8 (H, W), and bright on a dark ground.
    """
    names = list(dict.fromkeys(name for name, _ in shots))
    labels = torch.tensor([names.index(name) for name, _ in shots])
    with torch.no_grad():
        x, asked = (_input(learner, slow, images) for images in ([image for _, image in shots], queries))
        fast = adapt(learner, slow, Support(x, torch.eye(len(names))[labels]))
        return names, learner.predict(slow, fast, asked).numpy()


def _input(learner: Learner, slow: Params, images: Sequence[np.ndarray]) -> torch.Tensor:
    x = torch.from_numpy(np.stack(images)[:, None] * SCALE)
    return learner.net.body(slow, x) if learner.on_features else x
